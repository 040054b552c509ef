"""Every call passes here: faults, credentials, permissions, then the service; writes are journaled."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from botocore.model import ServiceModel
from moto.core.request import Request
from moto.core.utils import get_service_model
from moto.moto_api._internal import mock_random

from simulator.aws.answers import Answer, Refusal, Refused, spell
from simulator.aws.estate import Estate
from simulator.aws.identity import PLATFORM_ACCOUNT, SESSION_KEY, Principal
from simulator.aws.operation import Operation
from simulator.aws.permissions import Permissions

CREDENTIAL = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
READS = ("Describe", "Get", "List", "Search", "Validate", "Estimate", "Lookup", "Simulate", "Detect", "Test")
KEPT_ELSEWHERE = frozenset({"RunInstances", "CreateFleet", "TerminateInstances"})
NOT_REPLAYED = frozenset({"sts", "autoscaling", "sqs"})
FIRST_ERROR = 300
KEPT_HEADERS = ("content-type", "x-amz-target")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request as it came in; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Addressed:
    """A call whose signature says which service and region it is for, and who signed it."""

    call: Call
    service: str
    region: str
    access_key_id: str


class Gate:
    """Answers calls as AWS would; None means that the connection is dropped without an answer."""

    def __init__(
        self,
        estate: Estate,
        permissions: Permissions,
        responders: dict[str, Callable[[], Operation]],
        prepare: Callable[[str, str], None],
    ) -> None:
        self._estate = estate
        self._permissions = permissions
        self._responders = responders
        self._prepare = prepare
        self._written = len(estate.journal.read("request/"))

    def answer(self, call: Call) -> Answer | None:
        """The answer to one call."""
        faults = self._estate.faults
        if faults.unreachable:
            return None
        if faults.latency_ms:
            time.sleep(faults.latency_ms / 1000)
        addressed = _addressed(call)
        try:
            return self._answer(addressed)
        except Refused as refused:
            return spell(addressed.service, refused)
        except Exception:
            logger.exception("The simulated %s failed on %s.", addressed.service, call.body[:200])
            return spell(addressed.service, Refused(Refusal.BROKEN, "An internal error has occurred"))

    def warm_up(self) -> None:
        """Read prices and the services' descriptions before the first call needs them; they are large."""
        self._estate.market.load()
        for service in self._responders:
            _model(service)

    def replay(self) -> None:
        """Perform the journaled writes again, with the same ids; for a moto that has just been emptied."""
        try:
            for record in self._estate.journal.read("request/").values():
                self._repeat(record)
        finally:
            self._estate.replaying_at = None

    def _repeat(self, record: dict[str, Any]) -> None:
        call = Call(record["method"], record["target"], record["headers"], record["body"].encode())
        addressed = Addressed(call, record["service"], record["region"], "")
        principal = Principal(record["account_id"], record["arn"], "", [])
        self._estate.replaying_at = datetime.fromisoformat(record["at"])
        self._prepare(principal.account_id, addressed.region)
        mock_random.seed(record["seed"])
        responder = self._responders[addressed.service]()
        responder.admit(_request(addressed, principal), self._estate, principal)
        answer = responder.perform()
        if answer.status >= FIRST_ERROR:
            logger.warning("A write cannot be repeated: %s %s", addressed.service, answer.body[:300])

    def _answer(self, addressed: Addressed) -> Answer | None:
        if addressed.service not in self._responders:
            raise Refused(Refusal.UNKNOWN_ACTION, f"The service '{addressed.service}' is not simulated.")
        token = addressed.call.headers.get("x-amz-security-token")
        principal = self._estate.identities.principal(addressed.access_key_id, token)
        self._refuse_disabled(addressed, principal)
        self._strike(addressed)
        with self._estate.lock:
            answer, action = self._perform(addressed, principal)
        writes = not action.startswith(READS)
        return None if self._estate.faults.loses_answer(action, writes=writes) else answer

    def _strike(self, addressed: Addressed) -> None:
        """Refuse the call when a fault that is switched on meets it, before anything is performed."""
        faults = self._estate.faults
        if faults.throttles():
            raise Refused(Refusal.THROTTLED, "Rate exceeded")
        if faults.fails():
            raise Refused(Refusal.BROKEN, "An internal error has occurred")
        if addressed.access_key_id.startswith(SESSION_KEY) and faults.expires_credentials():
            raise Refused(Refusal.EXPIRED, "The security token included in the request is expired.")

    def _refuse_disabled(self, addressed: Addressed, principal: Principal) -> None:
        enabled = self._estate.enabled_regions - self._estate.faults.disabled_regions
        if addressed.region not in enabled and principal.account_id != PLATFORM_ACCOUNT:
            raise Refused(Refusal.UNKNOWN_KEY, "The security token included in the request is invalid.")

    def _perform(self, addressed: Addressed, principal: Principal) -> tuple[Answer, str]:
        self._prepare(principal.account_id, addressed.region)
        responder = self._responders[addressed.service]()
        action = responder.admit(_request(addressed, principal), self._estate, principal)
        if action not in _model(addressed.service).operation_names:
            raise Refused(Refusal.UNKNOWN_ACTION, f"The action {action} is not valid for this endpoint.")
        self._authorize(addressed, principal, responder, action)
        if addressed.service == "ec2" and responder.asked("DryRun"):
            raise Refused(Refusal.DRY_RUN, "Request would have succeeded, but DryRun flag is set.")
        seed = self._estate.digest("request", str(self._written))
        writes = not action.startswith(READS)
        if writes:
            mock_random.seed(seed)
        try:
            answer = responder.perform()
        except NotImplementedError as missing:
            raise Refused(Refusal.UNKNOWN_ACTION, f"{action} is not simulated.") from missing
        if writes and answer.status < FIRST_ERROR and self._is_replayed(addressed.service, action):
            self._write_down(addressed, principal, seed)
        return answer, action

    def _authorize(
        self, addressed: Addressed, principal: Principal, responder: Operation, action: str
    ) -> None:
        needs = self._permissions.needed(
            addressed.service,
            action,
            responder.asked,
            account_id=principal.account_id,
            region=addressed.region,
        )
        for need in needs:
            if not principal.may(need.action, need.resource, need.context):
                raise Refused(
                    Refusal.DENIED,
                    f"User: {principal.arn} is not authorized to perform: {need.action} on resource: "
                    f"{need.resource} because no identity-based policy allows the {need.action} action",
                )

    def _is_replayed(self, service: str, action: str) -> bool:
        return service not in NOT_REPLAYED and action not in KEPT_ELSEWHERE

    def _write_down(self, addressed: Addressed, principal: Principal, seed: str) -> None:
        call = addressed.call
        record = {
            "service": addressed.service,
            "region": addressed.region,
            "account_id": principal.account_id,
            "arn": principal.arn,
            "at": self._estate.now().isoformat(),
            "seed": seed,
            **asdict(call),
            "headers": {name: call.headers[name] for name in KEPT_HEADERS if name in call.headers},
            "body": call.body.decode(),
        }
        self._estate.journal.write({f"request/{self._written:08d}": record})
        self._written += 1


def _addressed(call: Call) -> Addressed:
    match = CREDENTIAL.search(call.headers.get("authorization", ""))
    access_key_id, region, service = match.groups() if match else ("", "us-east-1", "")
    return Addressed(call, service.lower(), region, access_key_id)


def _request(addressed: Addressed, principal: Principal) -> Request:
    """The call as moto reads it: the host names service and region, a header the account."""
    call = addressed.call
    headers = {name: call.headers[name] for name in KEPT_HEADERS if name in call.headers}
    headers["x-moto-account-id"] = principal.account_id
    host = f"{addressed.service}.{addressed.region}.amazonaws.com"
    return Request.from_primitives(call.method, f"http://{host}{call.target}", headers, call.body)


def _model(service: str) -> ServiceModel:
    model: ServiceModel = get_service_model(service)
    return model
