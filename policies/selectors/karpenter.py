"""Karpenter for its page and for the API: each node pool, what it is to be told, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from audit.domain.diff import Change, changes
from clusters.domain.contact import is_stale
from clusters.models import Action, Cluster, NodePool
from policies.domain import document
from policies.domain.karpenter import PREFIX, STEERED
from policies.models import ClusterPolicy, PoolSteering
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound


class State(StrEnum):
    """How far the steering of one node pool has come."""

    UNKNOWN = "unknown"
    """Nobody has looked at it yet."""
    LEFT_ALONE = "left_alone"
    IN_PLACE = "in_place"
    HANDED_BACK = "handed_back"
    """Ours launches nothing any more."""
    WAITING = "waiting"
    HELD = "held"
    """Something holds it for now: a pause, safe mode, an ill cluster."""
    FAILED = "failed"
    """The agent could not apply it; it is not tried again until something changes or a person wants it."""
    RECOMMENDED = "recommended"


APPLICABLE = frozenset({State.HELD, State.FAILED, State.RECOMMENDED})
"""States in which a person may have the wanted object applied."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One of the customer's node pools, and ours beside it."""

    id: UUID | None
    """Of the steering; None until somebody has looked."""
    pool: str
    name: str
    """Of our node pool, whether or not it is there."""
    state: State
    sentence: str
    code: str
    spec: Mapping[str, Any]
    """The customer's pool, as it was last reported; empty when it is gone."""
    used: Mapping[str, str]
    managers: Mapping[str, Sequence[str]]
    own_used: Mapping[str, str] | None
    """Capacity of the nodes of ours; None while ours is not there."""
    changes: tuple[Change, ...]
    """What applying would change in ours."""
    fingerprint: str
    action: Action | None
    hold: str
    looked_at: datetime | None

    @property
    def is_applicable(self) -> bool:
        """Tell whether a person may have it applied now."""
        return self.state in APPLICABLE

    @property
    def requirements(self) -> tuple[str, ...]:
        """Return what the customer's pool asks of its nodes, a line for each."""
        wanted = ((self.spec.get("template") or {}).get("spec") or {}).get("requirements") or ()
        return tuple(
            f"{each.get('key')} {each.get('operator')} {', '.join(each.get('values') or ())}".rstrip()
            for each in wanted
        )


@dataclass(frozen=True, slots=True)
class KarpenterView:
    """What is known of Karpenter in one cluster."""

    status: str
    """As ``Cluster.Karpenter`` has it; empty when no agent has told."""
    reported_at: datetime | None
    is_stale: bool
    has_agent: bool
    is_enabled: bool
    """Whether the policy steers Karpenter."""
    is_automatic: bool
    """Whether it does so without a person."""
    pools: tuple[PoolView, ...]


def karpenter_of(cluster_id: UUID) -> KarpenterView:
    """Return Karpenter in one cluster (four queries), or raise NotFound."""
    cluster = Cluster.objects.filter(pk=cluster_id, removed_at=None).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    policy = ClusterPolicy.objects.filter(cluster_id=cluster_id).first()
    said = document.parse(policy.config if policy else {})
    is_automatic = policy is not None and policy.mode == ClusterPolicy.Mode.AUTOMATIC
    reported = {row.name: row for row in NodePool.objects.filter(cluster_id=cluster_id).order_by("name")}
    rows = PoolSteering.objects.filter(cluster_id=cluster_id).select_related("action", "cluster")
    steered = {row.pool: row for row in rows}
    names = {name for name, row in reported.items() if not row.is_ours} | steered.keys()
    return KarpenterView(
        status=cluster.karpenter,
        reported_at=cluster.snapshot_at,
        is_stale=is_stale(cluster.snapshot_at, utcnow()),
        has_agent=cluster.snapshot_at is not None,
        is_enabled=said.karpenter.enabled and (policy is None or policy.is_active),
        is_automatic=is_automatic and not said.approval.required,
        pools=tuple(_view(name, reported, steered.get(name)) for name in sorted(names)),
    )


def _view(name: str, reported: Mapping[str, NodePool], row: PoolSteering | None) -> PoolView:
    theirs = reported.get(name)
    ours = next((each for each in reported.values() if each.is_ours and each.steers == name), None)
    return PoolView(
        id=row.pk if row else None,
        pool=name,
        name=row.name if row else PREFIX + name,
        state=_state(row),
        sentence=row.sentence if row else "",
        code=row.code if row else "",
        spec=theirs.spec if theirs else {},
        used=theirs.used if theirs else {},
        managers=theirs.managers if theirs else {},
        own_used=ours.used if ours else None,
        changes=_changes(row, ours),
        fingerprint=row.fingerprint if row else "",
        action=row.action if row else None,
        hold=row.hold if row else "",
        looked_at=row.looked_at if row else None,
    )


def _changes(row: PoolSteering | None, ours: NodePool | None) -> tuple[Change, ...]:
    if row is None or row.manifest is None or row.is_met:
        return ()
    return tuple(changes(ours.spec if ours else {}, row.manifest["spec"]))


def _state(row: PoolSteering | None) -> State:
    if row is None:
        return State.UNKNOWN
    if row.manifest is None:
        return State.LEFT_ALONE
    if row.is_met:
        return State.IN_PLACE if row.code == STEERED else State.HANDED_BACK
    if row.is_under_way:
        return State.WAITING
    if row.hold:
        return State.HELD
    failed = row.action is not None and row.action.status == Action.Status.FAILED
    return State.FAILED if failed else State.RECOMMENDED
