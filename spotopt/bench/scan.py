"""The product's scan of 2,000 instances in 3 regions, over the bare boto3 calls that it needs.

Run ``python -m spotopt.bench.scan``. Both sides use eight threads and the same regions. "First" includes
assuming the role and making the clients, and the product writes every row; "again" is the scan of every
five minutes: the session is kept and all rows are compared. The aim is a ratio of 1.2 or less.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import boto3
from django.db import connection

from spotopt.bench.scratch import scratch_stores, simulated_aws

ROUNDS = 5
CUSTOMER = "111122223333"
HOME = "us-east-1"
THREADS = 8
AIM = 1.2


@dataclass(frozen=True, slots=True)
class Result:
    """Median seconds of both sides and the median of their ratios, round by round."""

    name: str
    bare_seconds: float
    product_seconds: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"{self.name}: product {self.product_seconds:.3f} s, bare boto3 {self.bare_seconds:.3f} s, "
            f"ratio {self.ratio:.2f} (aim ≤ {AIM})"
        )


def main() -> int:
    """Print the result; the exit status says whether the aim was met."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with scratch_stores(directory), simulated_aws(directory, fleet="bench") as url:
            results = measure(url)
    for result in results:
        sys.stdout.write(f"{result}\n")
    return 0 if all(result.ratio <= AIM for result in results) else 1


def measure(url: str) -> list[Result]:
    """Scan in turn with the product and with boto3 alone, in every round."""
    from clusters.aws.session import session_for  # noqa: PLC0415  # Django has to be set up first
    from clusters.models import Instance  # noqa: PLC0415

    account, scan = _linked_account(url)
    role_arn, external_id = account.role_arn, str(account.external_id)
    scan()
    found = Instance.unscoped.count()
    sys.stdout.write(f"{found} instances in {_regions_with_instances()} regions\n")

    def first_product() -> None:
        session_for.cache_clear()
        scan()

    def forget() -> None:
        Instance.unscoped.all().delete()

    kept = _BareAws(role_arn, external_id)
    kept.scan()
    first = _compare("first", lambda: _BareAws(role_arn, external_id).scan(), first_product, before=forget)
    _tidy()
    return [first, _compare("again", kept.scan, scan)]


def _tidy() -> None:
    """Do now what PostgreSQL's autovacuum does in its own time: the first part deleted every row again."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE instances")


def _compare(
    name: str,
    bare: Callable[[], int],
    product: Callable[[], None],
    *,
    before: Callable[[], None] | None = None,
) -> Result:
    pairs = []
    for number in range(ROUNDS):
        if before is not None:
            before()
        sides = (bare, product) if number % 2 else (product, bare)
        seconds = {side: _seconds(side) for side in sides}
        pairs.append((seconds[bare], seconds[product]))
    return Result(
        name=name,
        bare_seconds=median(bare_seconds for bare_seconds, _ in pairs),
        product_seconds=median(product_seconds for _, product_seconds in pairs),
        ratio=median(product_seconds / bare_seconds for bare_seconds, product_seconds in pairs),
    )


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class _BareAws:
    """What a script with boto3 would do: the calls of a scan, nothing kept, nothing translated."""

    def __init__(self, role_arn: str, external_id: str) -> None:
        given = boto3.client("sts", region_name=HOME).assume_role(
            RoleArn=role_arn, RoleSessionName="bare", ExternalId=external_id, DurationSeconds=900
        )["Credentials"]
        self._session = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
        self._home = self._session.client("ec2", region_name=HOME)
        self._clients: dict[str, list[Any]] = {}

    def scan(self) -> int:
        """Return how many instances there are."""
        regions = [row["RegionName"] for row in self._home.describe_regions()["Regions"]]
        for region in regions:
            if region not in self._clients:
                make: Callable[..., Any] = self._session.client
                services = ("ec2", "autoscaling", "eks")
                self._clients[region] = [make(name, region_name=region) for name in services]
        with ThreadPoolExecutor(THREADS) as pool:
            return sum(pool.map(self._read, regions))

    def _read(self, region: str) -> int:
        ec2, autoscaling, eks = self._clients[region]
        pages = ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000})
        found = sum(len(reservation["Instances"]) for page in pages for reservation in page["Reservations"])
        groups = autoscaling.get_paginator("describe_auto_scaling_groups")
        list(groups.paginate(PaginationConfig={"PageSize": 100}))
        list(eks.get_paginator("list_clusters").paginate())
        return found


def _linked_account(url: str) -> tuple[Any, Callable[[], None]]:
    """Return an account whose role exists, and a function that scans it once."""
    from accounts.domain import trust_policy  # noqa: PLC0415  # Django has to be set up first
    from accounts.models import Account, Organization, User  # noqa: PLC0415
    from clusters.services import market, scanning  # noqa: PLC0415
    from spotopt.core.actor import Actor  # noqa: PLC0415
    from spotopt.core.tenancy import enter_tenant  # noqa: PLC0415

    market.load_reference_data()
    owner = User.objects.create_user("bench@spotopt.test")
    organization = Organization.objects.create(name="Bench", slug="bench", owner=owner)
    enter_tenant(organization.pk)
    account = Account.objects.create(
        organization=organization, alias="Bench", aws_account_id=CUSTOMER, status=Account.Status.SCANNING
    )
    template = trust_policy.render(mode="full_access", platform_account_id="999988887777").body
    account.role_arn = _make_stack(url, template, str(account.external_id))
    account.save()
    actor = Actor.system(organization.pk)

    def scan() -> None:
        run = scanning.request_scan(account_id=account.pk, actor=actor, trigger="schedule")
        scanning.scan_account(account_id=account.pk, run_id=run.pk)
        run.refresh_from_db()
        if run.status != "completed":
            raise SystemExit(f"The scan ended {run.status}: {run.errors}")

    return account, scan


def _make_stack(url: str, template: str, external_id: str) -> str:
    """Create the role as the customer's administrator would; return its ARN."""
    cloudformation = boto3.client(
        "cloudformation",
        endpoint_url=url,
        region_name=HOME,
        aws_access_key_id=f"AKIACUSTOMERADMIN{CUSTOMER}",
        aws_secret_access_key="simulated",  # noqa: S106  # the simulator takes any
    )
    cloudformation.create_stack(
        StackName="Spotopt",
        TemplateBody=template,
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": "ExternalId", "ParameterValue": external_id}],
    )
    outputs = cloudformation.describe_stacks(StackName="Spotopt")["Stacks"][0]["Outputs"]
    return str(outputs[0]["OutputValue"])


def _regions_with_instances() -> int:
    from clusters.models import Instance  # noqa: PLC0415  # Django has to be set up first

    return Instance.unscoped.values("region").distinct().count()


if __name__ == "__main__":
    raise SystemExit(main())
