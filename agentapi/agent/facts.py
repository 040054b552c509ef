"""The little that the agent remembers of each Kubernetes object."""

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from sys import intern
from typing import Any

from agentapi.agent.neighbours import Ties, ties_of
from agentapi.agent.quantities import mib_below, millis, whole
from agentapi.agent.shapes import GPU, Request, claims_of, constraints_of, request_of
from agentapi.protocol import Constraints, Taint, canonical_json, dump

Body = Mapping[str, Any]
MIRROR = "kubernetes.io/config.mirror"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
SENTRY = "spotopt-sentry"
"""The name of sentries' pods, which end with what they read in their node's metadata."""
CORDONED_BY = "spotopt.io/cordoned-by"
"""Annotation with the action that cordoned the node, so that we lift no cordon of somebody else's."""
_ZONE_KEYS = (ZONE, "failure-domain.beta.kubernetes.io/zone", "topology.ebs.csi.aws.com/zone")


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller, by kind and name inside a pod's namespace."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Signal:
    """What a node's object says of its end, ``interruption`` or ``rebalance``; ``at`` is 0 without a time."""

    kind: str
    at: float = 0.0


SIGNALS: Mapping[str, str] = {
    "aws-node-termination-handler/spot-itn": "interruption",
    "aws-node-termination-handler/rebalance-recommendation": "rebalance",
    "SpotInterruption": "interruption",
    "RebalanceRecommendation": "rebalance",
}
"""Taints of AWS's node termination handler, and the conditions that watchers of instance metadata set."""


@dataclass(frozen=True, slots=True)
class PodFact:
    """One pod."""

    namespace: str
    name: str
    node: str
    phase: str
    ready: bool
    terminating: bool
    owner: Owner | None
    is_mirror: bool
    request: Request
    constraints: Constraints
    ties: Ties
    claims: tuple[str, ...]
    labels: Mapping[str, str]
    signal: Signal | None = None
    """What a sentry says of its node."""

    @property
    def is_over(self) -> bool:
        """Tell whether it holds no room any more."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class NodeFact:
    """One node."""

    name: str
    instance_id: str
    ready: bool
    unschedulable: bool
    cpu_millis: int
    memory_mib: int
    pods: int
    gpu: int
    ephemeral_mib: int
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    signals: tuple[Signal, ...] = ()
    cordoned_by: str = ""
    """The action of ours that closed it, if one did."""


@dataclass(frozen=True, slots=True)
class ControllerFact:
    """A deployment, replica set, stateful set or daemon set, and the shape of the pods it makes."""

    namespace: str
    name: str
    owner: Owner | None
    replicas: int
    request: Request
    constraints: Constraints
    ties: Ties
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BudgetFact:
    """A pod disruption budget."""

    namespace: str
    selector: Body | None
    allows: int
    minimum: int


@dataclass(frozen=True, slots=True)
class VolumeFact:
    """Where a volume can be mounted."""

    zone: str
    """The one zone that it lives in; empty when it can be reached from everywhere or ``is_tied``."""
    is_tied: bool
    """True when it is bound to nodes in a way that a zone does not say, such as a local disk."""


_STATES = ("state", "lastState")
"""Of a container: what it is, and what it was before its last start."""
_NO_TIES = Ties()
_SHARED_PARTS = 20_000


class Facts:
    """Turns objects into facts, sharing equal parts: pods of one controller differ in little."""

    def __init__(self) -> None:
        self._shared: dict[Hashable, Any] = {}

    def pod(self, body: Body) -> PodFact:
        metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        owner, request = _controller(metadata), request_of(spec)
        return PodFact(
            namespace=intern(metadata["namespace"]),
            name=metadata["name"],
            node=intern(spec.get("nodeName") or ""),
            phase=intern(status.get("phase") or "Pending"),
            ready=_condition(status, "Ready"),
            terminating="deletionTimestamp" in metadata,
            owner=self._keep(owner, owner),
            is_mirror=MIRROR in (metadata.get("annotations") or {}),
            request=self._keep(request, request),
            constraints=self._share(constraints_of(metadata, spec, controlled=owner is not None)),
            ties=self._share_ties(spec),
            claims=claims_of(spec),
            labels=self._share_labels(metadata.get("labels") or {}),
            signal=_sentrys_signal(metadata, status),
        )

    def node(self, body: Body) -> NodeFact:
        metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
        room = status.get("allocatable") or {}
        return NodeFact(
            name=metadata["name"],
            instance_id=instance_id_of(body),
            ready=_condition(status, "Ready"),
            unschedulable=bool(spec.get("unschedulable")),
            cpu_millis=millis(str(room.get("cpu", "0"))),
            memory_mib=mib_below(str(room.get("memory", "0"))),
            pods=whole(str(room.get("pods", "0"))),
            gpu=whole(str(room.get(GPU, "0"))),
            ephemeral_mib=mib_below(str(room.get("ephemeral-storage", "0"))),
            labels=metadata.get("labels") or {},
            taints=tuple(
                Taint(key=each["key"], value=each.get("value") or "", effect=each["effect"])
                for each in spec.get("taints") or ()
            ),
            signals=_signals(spec, status),
            cordoned_by=cordoned_by(body),
        )

    def controller(self, body: Body) -> ControllerFact:
        metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
        template = spec.get("template") or {}
        pod_metadata, pod_spec = template.get("metadata") or {}, template.get("spec") or {}
        replicas = spec.get("replicas", status.get("desiredNumberScheduled", 1))
        return ControllerFact(
            namespace=metadata["namespace"],
            name=metadata["name"],
            owner=_controller(metadata),
            replicas=int(replicas),
            request=request_of(pod_spec),
            constraints=self._share(constraints_of(pod_metadata, pod_spec, controlled=True)),
            ties=self._share_ties(pod_spec),
            labels=self._share_labels(pod_metadata.get("labels") or {}),
        )

    def budget(self, body: Body) -> BudgetFact:
        status = body.get("status") or {}
        return BudgetFact(
            namespace=body["metadata"]["namespace"],
            selector=(body.get("spec") or {}).get("selector"),
            allows=int(status.get("disruptionsAllowed") or 0),
            minimum=int(status.get("desiredHealthy") or 0),
        )

    def claim(self, body: Body) -> str:
        """Return the volume that a claim is bound to; empty while it is not."""
        return str((body.get("spec") or {}).get("volumeName") or "")

    def _share(self, constraints: Constraints) -> Constraints:
        shared: Constraints = self._keep(canonical_json(dump(constraints)), constraints)
        return shared

    def _share_ties(self, spec: Body) -> Ties:
        ties = ties_of(spec)
        if ties == _NO_TIES:
            return _NO_TIES
        shared: Ties = self._keep(repr(ties).encode(), ties)
        return shared

    def _share_labels(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        kept = {key: value for key, value in labels.items() if key not in _CHANGING_LABELS}
        shared: Mapping[str, str] = self._keep(b"labels" + canonical_json(kept), kept)
        return shared

    def _keep(self, key: Hashable, value: Any) -> Any:
        if len(self._shared) >= _SHARED_PARTS:
            self._shared.clear()  # sharing saves memory, nothing else
        return self._shared.setdefault(key, value)


_CHANGING_LABELS = frozenset({"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"})
"""Differ from pod to pod, and budgets never select by them."""


def volume_fact(body: Body) -> VolumeFact:
    """Return the one zone that a volume lives in, or that it is tied to nodes in another way."""
    labels = body["metadata"].get("labels") or {}
    required = ((body.get("spec") or {}).get("nodeAffinity") or {}).get("required") or {}
    terms = required.get("nodeSelectorTerms") or ()
    expressions = [each for term in terms for each in _requirements(term)]
    zonal = [each for each in expressions if each["key"] in _ZONE_KEYS and each["operator"] == "In"]
    zones = {value for each in zonal for value in each.get("values") or ()}
    labelled = labels.get(ZONE) or labels.get(_ZONE_KEYS[1]) or ""
    zone = zones.pop() if len(zones) == 1 else "" if terms else labelled
    others = [each for each in expressions if each not in zonal and each["key"] != REGION]
    return VolumeFact(str(zone), is_tied=bool(others) or bool(terms and not zone))


def _requirements(term: Body) -> tuple[Body, ...]:
    return (*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ()))


def cordoned_by(node: Body) -> str:
    """Return the action of ours that cordoned the node; empty when none did."""
    return str((node["metadata"].get("annotations") or {}).get(CORDONED_BY) or "")


def instance_id_of(node: Body) -> str:
    """Return the EC2 instance id in a node's provider id, ``aws:///us-east-1a/i-…``; empty without one."""
    last = str((node.get("spec") or {}).get("providerID") or "").rpartition("/")[2]
    return last if last.startswith("i-") else ""


def _signals(spec: Body, status: Body) -> tuple[Signal, ...]:
    taints = ((each["key"], each.get("timeAdded")) for each in spec.get("taints") or ())
    conditions = (
        (each["type"], each.get("lastTransitionTime"))
        for each in status.get("conditions") or ()
        if each["status"] == "True"
    )
    return tuple(Signal(SIGNALS[name], _epoch(at)) for name, at in (*taints, *conditions) if name in SIGNALS)


def _sentrys_signal(metadata: Body, status: Body) -> Signal | None:
    if (metadata.get("labels") or {}).get("app.kubernetes.io/name") != SENTRY:
        return None
    states = (each.get(state) for each in status.get("containerStatuses") or () for state in _STATES)
    messages = (((state or {}).get("terminated") or {}).get("message") for state in states)
    try:
        said = json.loads(next((message for message in messages if message), "null"))
        return Signal(str(said["kind"]), _epoch(said["at"])) if said["kind"] in SIGNALS.values() else None
    except (ValueError, KeyError, TypeError):
        return None  # not what a sentry writes


def _epoch(text: str | None) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _controller(metadata: Body) -> Owner | None:
    for each in metadata.get("ownerReferences") or ():
        if each.get("controller"):
            return Owner(each["kind"], each["name"])
    return None


def _condition(status: Body, kind: str) -> bool:
    return any(each["type"] == kind and each["status"] == "True" for each in status.get("conditions") or ())
