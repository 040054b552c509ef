"""Status conditions: a list of typed facts, each with the instant it last turned."""

from datetime import datetime

from simulator.kube.errors import Body
from simulator.kube.quantities import stamp


def condition_of(body: Body, kind: str) -> Body | None:
    """The condition of this type, if the object has it."""
    conditions = body.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), None)


def with_condition(
    current: Body, kind: str, status: str, *, at: datetime, reason: str = "", message: str = ""
) -> Body:
    """A copy of an object's status with one condition set; its time moves only when it turns."""
    conditions = list(current.get("conditions") or ())
    known = next((each for each in conditions if each["type"] == kind), None)
    turned = known is None or known["status"] != status
    fresh: Body = {"type": kind, "status": status}
    if known and "lastHeartbeatTime" in known:
        fresh["lastHeartbeatTime"] = stamp(at)
    fresh["lastTransitionTime"] = stamp(at) if turned or known is None else known["lastTransitionTime"]
    if reason:
        fresh["reason"] = reason
    if message:
        fresh["message"] = message
    others = [fresh if each is known else each for each in conditions]
    return current | {"conditions": others if known else [*others, fresh]}
