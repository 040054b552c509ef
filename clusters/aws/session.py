"""Sessions in customers' AWS accounts: a role assumed for 15 minutes, renewed, and its clients."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.loaders import Loader
from botocore.session import Session
from botocore.utils import parse_timestamp

from clusters.aws.errors import translated
from clusters.domain.capacity import AwsIdentity

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_sts import STSClient

SESSION_SECONDS = 900
RENEW_SECONDS, MUST_RENEW_SECONDS = 180, 60
SESSIONS_KEPT = 256
STS_REGION = "us-east-1"
"""Its tokens are valid in every region, those that a customer must opt into included."""

_STS = Config(
    connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3},
    user_agent_extra="spotopt",
)  # fmt: skip
_CALLS = Config(
    connect_timeout=3, read_timeout=20, retries={"mode": "adaptive", "total_max_attempts": 4},
    max_pool_connections=10, user_agent_extra="spotopt",
)  # fmt: skip
"""One call is over within the lease of an AWS action, whatever happens to it."""


@dataclass(frozen=True, slots=True)
class RoleGrant:
    """The role that a customer gave us, and the secret that proves for whom we use it."""

    role_arn: str
    external_id: str = field(repr=False)


class AccountSession:
    """Calls in one customer's account. Safe to share between threads."""

    def __init__(self, grant: RoleGrant) -> None:
        """Assume the role now; raise AwsError when AWS does not let us."""
        self._grant = grant
        self._boto: boto3.Session | None = _assume(grant)
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = Lock()

    def in_region(self, region: str) -> "RegionSession":
        """Return the same session bound to a region."""
        return RegionSession(self, region)

    def identity(self) -> AwsIdentity:
        """Return whom AWS takes us for."""
        sts: STSClient = self.client("sts", STS_REGION)
        with translated(action="sts:GetCallerIdentity", region=STS_REGION):
            answer = sts.get_caller_identity()
        return AwsIdentity(account_id=answer["Account"], arn=answer["Arn"])

    def client(self, service: str, region: str) -> Any:
        """Return the one client of a service in a region."""
        with self._lock:  # clients are safe to share, making them is not
            if (service, region) not in self._clients:
                self._boto = self._boto or _assume(self._grant)
                make: Callable[..., Any] = self._boto.client
                self._clients[service, region] = make(service, region_name=region, config=_CALLS)
            return self._clients[service, region]

    def expire(self) -> None:
        """Let the credentials go, which AWS takes no more; the next call assumes the role anew."""
        with self._lock:
            self._boto, self._clients = None, {}


class RegionSession:
    """Calls in one region of one customer's account."""

    def __init__(self, account: AccountSession, region: str) -> None:
        self.account = account
        self.region = region

    @cached_property
    def ec2(self) -> "EC2Client":
        """Return the EC2 client."""
        client: EC2Client = self.account.client("ec2", self.region)
        return client

    @cached_property
    def eks(self) -> "EKSClient":
        """Return the EKS client."""
        client: EKSClient = self.account.client("eks", self.region)
        return client

    @cached_property
    def sqs(self) -> Any:
        """Return the SQS client."""
        return self.account.client("sqs", self.region)

    @cached_property
    def autoscaling(self) -> "AutoScalingClient":
        """Return the Auto Scaling client."""
        client: AutoScalingClient = self.account.client("autoscaling", self.region)
        return client


@lru_cache(maxsize=SESSIONS_KEPT)
def session_for(grant: RoleGrant) -> AccountSession:
    """Return this process's session for a role, assuming it at first use; raise AwsError when refused."""
    return AccountSession(grant)


def _assume(grant: RoleGrant) -> boto3.Session:
    renew = _assumer(grant)
    with translated(action="sts:AssumeRole", region=STS_REGION):
        credentials = RefreshableCredentials.create_from_metadata(
            metadata=renew(),
            refresh_using=renew,
            method="sts-assume-role",
            advisory_timeout=RENEW_SECONDS,
            mandatory_timeout=MUST_RENEW_SECONDS,
        )
    return boto3.Session(botocore_session=_botocore_session(credentials))


class _AssumedRole(CredentialProvider):
    """The only place where a customer's session looks for credentials."""

    METHOD = "sts-assume-role"

    def __init__(self, credentials: RefreshableCredentials) -> None:
        super().__init__()
        self._credentials = credentials

    def load(self) -> RefreshableCredentials:
        return self._credentials


@cache
def _models() -> Loader:
    """Parse the services' descriptions once in a process; they are large."""
    loader: Loader = Session().get_component("data_loader")
    return loader


def _botocore_session(credentials: RefreshableCredentials) -> Session:
    session = Session()
    session.register_component("data_loader", _models())
    session.register_component("credential_provider", CredentialResolver([_AssumedRole(credentials)]))
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_instant)
    return session


def _instant(value: Any) -> datetime:
    """Read AWS's ISO 8601 directly: botocore's parser guesses formats, half of the work of a large answer."""
    if isinstance(value, str):
        with suppress(ValueError):
            instant = datetime.fromisoformat(value)
            return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    guessed: datetime = parse_timestamp(value)
    return guessed


def _assumer(grant: RoleGrant) -> Callable[[], dict[str, str]]:
    def assume() -> dict[str, str]:
        arguments: dict[str, Any] = {"ExternalId": grant.external_id} if grant.external_id else {}
        answer = _platform_sts().assume_role(
            RoleArn=grant.role_arn,
            RoleSessionName="spotopt",
            DurationSeconds=SESSION_SECONDS,
            **arguments,
        )
        given = answer["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    return assume


def _platform_sts() -> "STSClient":
    """Spotopt's own credentials come from the environment or the machine's role, fresh at each use."""
    session = Session()
    session.register_component("data_loader", _models())
    client: STSClient = boto3.Session(botocore_session=session).client(
        "sts", region_name=STS_REGION, config=_STS
    )
    return client
