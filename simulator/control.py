"""The HTTP control of a world: status, records, faults, interruptions; tests take these as the truth."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from itertools import chain
from typing import Any, Protocol

from simulator.bill import STARTING
from simulator.kube.disruption import reconcile_budgets
from simulator.kube.podindex import controller_of, is_active, is_healthy
from simulator.kube.quantities import instant
from simulator.kube.rbac import ADMIN, AGENT, RIGHTSIZING_AGENT, VIEWER, token_of
from simulator.machines import Machine
from simulator.web import Request, Response, json_response
from simulator.world import World

ACTION_TAG = "spotopt:action-id"
OUR_TAGS = "spotopt:"
PATIENCE = timedelta(minutes=10)
USERS = {"agent": AGENT, "rightsizing": RIGHTSIZING_AGENT, "viewer": VIEWER, "admin": ADMIN}
FAULT_KEYS = frozenset({"pdb_enforcement", "aws", "kube"})


class SwitchableFaults(Protocol):
    """The faults of the simulated AWS."""

    struck: Counter[str]

    def update(self, changes: dict[str, Any], *, now: datetime) -> None: ...
    def as_dict(self) -> dict[str, Any]: ...


class ControlError(Exception):
    """A request that the control refuses: a status and a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """Answers everything below /control."""

    def __init__(
        self, world: World, *, kube_url: str, aws_faults: SwitchableFaults | None, stop: Callable[[], None]
    ) -> None:
        self._world, self._kube_url = world, kube_url
        self._aws_faults, self._stop = aws_faults, stop
        self._reads: dict[str, Callable[[Request], Any]] = {
            "status": lambda _: self._status(),
            "bill": self._bill,
            "availability": lambda _: self._availability(),
            "launches": lambda _: self._launches(),
            "faults": lambda _: self._faults(),
            "machines": lambda _: {"machines": [_machine(each) for each in world.room.all()]},
        }
        self._acts: dict[str, Callable[[dict[str, Any]], Any]] = {
            "faults": self._set_faults,
            "interrupt": self._interrupt,
            "rebalance": self._rebalance,
            "kill-node": self._kill_node,
            "stop": self._stop_world,
        }

    def handle(self, request: Request, path: tuple[str, ...]) -> Response:
        """Answer one request; problems are JSON with an `error` sentence."""
        try:
            return json_response(self._answer(request, path))
        except ControlError as error:
            return json_response({"error": str(error)}, error.status)

    def _answer(self, request: Request, path: tuple[str, ...]) -> Any:
        if path[:1] == ("clusters",) and len(path) == 3:  # noqa: PLR2004 - clusters/<name>/<what>
            return self._about_cluster(request, *path[1:])
        name = "/".join(path)
        if request.method == "GET" and name in self._reads:
            return self._reads[name](request)
        if request.method == "POST" and name in self._acts:
            return self._acts[name](_json_object(request.body))
        raise ControlError(HTTPStatus.NOT_FOUND, f"There is no {request.method} /control/{name}.")

    def _about_cluster(self, request: Request, name: str, what: str) -> Any:
        if name not in self._world.clusters:
            raise ControlError(HTTPStatus.NOT_FOUND, f"There is no cluster {name}.")
        found = self._world.clusters[name]
        if what == "credentials":
            role = request.query.get("as", "agent")
            if role not in USERS:
                raise ControlError(HTTPStatus.BAD_REQUEST, f"`as` is one of {', '.join(sorted(USERS))}.")
            server = f"{self._kube_url}/clusters/{name}"
            return {"server": server, "token": token_of(found.cluster, USERS[role])}
        if what == "accesses":
            fields = ("user", "verb", "group", "resource")
            accesses = sorted(found.api.accesses.items())
            rows = [dict(zip(fields, key, strict=True)) | {"count": count} for key, count in accesses]
            return {"accesses": rows}
        raise ControlError(HTTPStatus.NOT_FOUND, f"Nothing is known about a cluster's {what}.")

    def _status(self) -> Any:
        clusters = []
        for name, found in self._world.clusters.items():
            store = found.cluster.store
            pods = [pod for pod in store.bodies("pods") if is_active(pod)]
            nodes = list(store.bodies("nodes"))
            clusters.append(
                {
                    "name": name,
                    "account_id": found.cluster.account_id,
                    "region": found.cluster.region,
                    "nodes_ready": sum(is_healthy(node) for node in nodes),
                    "nodes_total": len(nodes),
                    "pods_running": sum(map(_is_running, pods)),
                    "daemon_pods_running": sum(_is_running(pod) and _is_daemon(pod) for pod in pods),
                    "pods_pending": sum(pod["status"].get("phase") == "Pending" for pod in pods),
                }
            )
        return {"ready": True, "now": self._world.clock.now().isoformat(), "clusters": clusters}

    def _bill(self, request: Request) -> Any:
        since, until = (_instant(request.query.get(name)) for name in ("since", "until"))
        return self._world.bill.statement(now=self._world.clock.now(), since=since, until=until)

    def _availability(self) -> Any:
        now = self._world.clock.now()
        return {
            "clusters": {name: found.availability.report(now) for name, found in self._world.clusters.items()}
        }

    def _launches(self) -> Any:
        launched = [each for each in self._world.room.all() if each.launched_by != STARTING]
        return {
            "launches": [_machine(each) for each in launched],
            "duplicates": _duplicates(launched),
            "orphans": [
                _machine(each) | {"was_used": self._was_used(each)}
                for each in launched
                if self._is_orphan(each)
            ],
        }

    def _is_orphan(self, machine: Machine) -> bool:
        """Ours and alive, but no node ten minutes after launch, or idle for ten minutes since it joined."""
        now = self._world.clock.now()
        is_ours = any(key.startswith(OUR_TAGS) for key in machine.tags)
        if not is_ours or machine.state != "running" or now < machine.launched_at + PATIENCE:
            return False
        found = self._world.clusters.get(machine.cluster or "")
        node = found.cluster.store.get("nodes", "", machine.private_dns) if found else None
        if found is None or node is None:
            return True
        idle_since = max(
            instant(node["metadata"]["creationTimestamp"]),
            found.cluster.emptied_at.get(machine.private_dns, machine.launched_at),
        )
        pods = found.cluster.index.pods_on(machine.private_dns)
        return all(_is_daemon(pod) for pod in pods) and now >= idle_since + PATIENCE

    def _was_used(self, machine: Machine) -> bool:
        """Whether pods ran there before: a cluster that shrank emptied the node, nobody forgot it."""
        found = self._world.clusters.get(machine.cluster or "")
        return found is not None and machine.private_dns in found.cluster.emptied_at

    def _faults(self) -> Any:
        kube = self._world.kube_faults
        enforced = all(each.cluster.enforces_budgets for each in self._world.clusters.values())
        return {
            "pdb_enforcement": enforced,
            "aws": self._aws_faults.as_dict() if self._aws_faults else {},
            "aws_struck": dict(self._aws_faults.struck) if self._aws_faults else {},
            "kube": {"error_rate": kube.error_rate, "codes": list(kube.codes), "struck": dict(kube.struck)},
        }

    def _set_faults(self, changes: dict[str, Any]) -> Any:
        if unknown := changes.keys() - FAULT_KEYS:
            raise ControlError(HTTPStatus.BAD_REQUEST, f"Unknown faults: {', '.join(sorted(unknown))}.")
        if "aws" in changes and self._aws_faults:
            try:
                self._aws_faults.update(changes["aws"], now=self._world.clock.now())
            except (ValueError, TypeError) as error:
                raise ControlError(HTTPStatus.BAD_REQUEST, str(error)) from error
        for each in self._world.clusters.values():
            enforced = bool(changes.get("pdb_enforcement", each.cluster.enforces_budgets))
            if enforced != each.cluster.enforces_budgets:
                each.cluster.enforces_budgets = enforced
                reconcile_budgets(each.cluster)
        kube = self._world.kube_faults
        kube.error_rate = float(changes.get("kube", {}).get("error_rate", kube.error_rate))
        kube.codes = tuple(changes.get("kube", {}).get("codes", kube.codes))
        return self._faults()

    def _interrupt(self, body: dict[str, Any]) -> Any:
        """Warn of one instance, or at once of the many that ``instance_ids`` names."""
        ids = body.get("instance_ids")
        machines = [self._machine({"instance_id": each}) for each in ids] if ids else [self._machine(body)]
        for machine in machines:
            if machine.lifecycle != "spot":
                raise ControlError(HTTPStatus.CONFLICT, f"{machine.instance_id} is not a spot instance.")
        now = self._world.clock.now()
        for machine in machines:
            self._world.room.warn(machine.instance_id, at=now)
        return {"machines": [_machine(each) for each in machines]} if ids else _machine(machines[0])

    def _rebalance(self, body: dict[str, Any]) -> Any:
        machine = self._machine(body)
        self._world.room.recommend_rebalance(machine.instance_id, at=self._world.clock.now())
        return _machine(machine)

    def _kill_node(self, body: dict[str, Any]) -> Any:
        machine = self._machine(body)
        self._world.room.fail(machine.instance_id, at=self._world.clock.now())
        return _machine(machine)

    def _stop_world(self, _: dict[str, Any]) -> Any:
        self._stop()
        return {"stopping": True}

    def _machine(self, body: dict[str, Any]) -> Machine:
        machine = self._world.room.get(str(body.get("instance_id")))
        if machine is None or not machine.is_alive:
            raise ControlError(HTTPStatus.NOT_FOUND, f"No machine {body.get('instance_id')} is alive.")
        return machine


def _duplicates(launched: list[Machine]) -> list[dict[str, Any]]:
    """Client tokens and action ids that were served by more than one launch request."""
    requests: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for machine in launched:
        request = machine.fleet_id or machine.client_token or machine.instance_id
        keys = {"client_token": machine.client_token, ACTION_TAG: machine.tags.get(ACTION_TAG)}
        for kind, value in keys.items():
            if value:
                requests[kind, value][request].append(machine.instance_id)
    return [
        {"by": kind, "value": value, "instance_ids": sorted(chain.from_iterable(by_request.values()))}
        for (kind, value), by_request in requests.items()
        if len(by_request) > 1
    ]


def _is_running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"].get("phase") == "Running")


def _is_daemon(pod: dict[str, Any]) -> bool:
    """Tell whether the pod comes and goes with its node, so that it says nothing about the work done."""
    owner = controller_of(pod)
    return owner is not None and owner["kind"] == "DaemonSet"


def _machine(machine: Machine) -> dict[str, Any]:
    names = (
        "instance_id", "account_id", "region", "zone", "zone_id", "instance_type", "lifecycle", "private_dns",
        "cluster", "group", "tags", "client_token", "fleet_id", "launched_by", "state", "termination_reason",
    )  # fmt: skip
    instants = ("launched_at", "ready_at", "terminated_at", "interrupted_at", "rebalance_at", "failed_at")
    shown = {name: getattr(machine, name) for name in names} | {"usd_per_hour": str(machine.usd_per_hour)}
    values = {name: getattr(machine, name) for name in instants}
    return shown | {name: value.isoformat() if value else None for name, value in values.items()}


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content or b"{}")
    except ValueError as error:
        raise ControlError(HTTPStatus.BAD_REQUEST, "The body is not JSON.") from error
    if not isinstance(value, dict):
        raise ControlError(HTTPStatus.BAD_REQUEST, "The body is not a JSON object.")
    return value


def _instant(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text.replace(" ", "+")) if text else None
    except ValueError as error:
        raise ControlError(HTTPStatus.BAD_REQUEST, f"{text} is not an ISO 8601 instant.") from error
    if found is not None and found.tzinfo is None:
        raise ControlError(HTTPStatus.BAD_REQUEST, f"{text} has no time zone.")
    return found
