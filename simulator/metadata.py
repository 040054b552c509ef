"""The instance metadata that a spot instance reads about its own end."""

from http import HTTPStatus

from simulator.kube.quantities import stamp
from simulator.machines import Machine, MachineRoom
from simulator.web import Request, Response, json_response

TOKEN = "simulated-metadata-token"  # noqa: S105 - not a secret: any token is accepted
PREFIX = ("latest", "meta-data")


def handle(room: MachineRoom, request: Request, path: tuple[str, ...]) -> Response:
    """Answer /metadata/<instance id>/latest/…; 404 as the real service for what is not there."""
    if not path:
        return _not_found()
    machine = room.get(path[0])
    if request.method == "PUT" and path[1:] == ("latest", "api", "token"):
        return Response(HTTPStatus.OK, TOKEN.encode(), {"content-type": "text/plain"})
    if machine is None or not machine.is_alive or path[1:3] != PREFIX:
        return _not_found()
    return _signal(machine, "/".join(path[3:])) or _not_found()


def _signal(machine: Machine, what: str) -> Response | None:
    if what == "spot/instance-action" and machine.terminates_at:
        return json_response({"action": "terminate", "time": stamp(machine.terminates_at)})
    if what == "spot/termination-time" and machine.terminates_at:
        return _text(stamp(machine.terminates_at))
    if what == "events/recommendations/rebalance" and machine.rebalance_at:
        return json_response({"noticeTime": stamp(machine.rebalance_at)})
    fact = _fact(machine, what)
    return _text(fact) if fact else None


def _fact(machine: Machine, what: str) -> str | None:
    return {
        "instance-id": machine.instance_id,
        "instance-type": machine.instance_type,
        "instance-life-cycle": machine.lifecycle,
        "local-hostname": machine.private_dns,
        "placement/availability-zone": machine.zone,
        "placement/availability-zone-id": machine.zone_id,
        "placement/region": machine.region,
    }.get(what)


def _text(content: str) -> Response:
    return Response(HTTPStatus.OK, content.encode(), {"content-type": "text/plain"})


def _not_found() -> Response:
    return Response(HTTPStatus.NOT_FOUND, b"", {"content-type": "text/html"})
