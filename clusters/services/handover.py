"""Hand an agent its actions, and request many at once where nobody may wait for another's turn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Case, Q, When

from audit.services import record_all
from clusters.domain import actions as rules
from clusters.domain.facts import ClusterFacts, Verdict
from clusters.domain.guardrails import judge
from clusters.models import Action, Cluster
from clusters.selectors.guard import cluster_facts, switches_of
from clusters.services import actions
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import GuardrailViolated
from spotopt.core.live import announce

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")
Delivery = TypeVar("Delivery")
Deliver = Callable[[Sequence[Action]], Sequence[Delivery]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One act of a reaction, for the agent."""

    kind: str
    target: str
    params: dict[str, object]
    reason: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Claimant:
    """An agent that asks for its cluster's actions, and how many it takes."""

    agent_id: str
    limit: int


@transaction.atomic
def request_together(*, cluster: Cluster, wanted: Sequence[Wanted], actor: Actor) -> list[Action]:
    """Queue involuntary acts of the agent and return them in order; a known key returns its first action.

    Raises GuardrailViolated, with nothing queued, when one is forbidden: all are while the platform is
    frozen, and so is opening a node that AWS takes.
    """
    facts = cluster_facts(cluster.pk, with_nodes=False)
    drafts = [
        actions.draft(cluster=cluster, actor=actor, is_voluntary=False, **asdict(each)) for each in wanted
    ]
    for action in drafts:
        verdict = _forbidden(action, facts)
        if verdict is not None:
            raise GuardrailViolated(verdict.reason, code=verdict.code)
    stored = _by_key(drafts)
    missing = [action for action in drafts if action.idempotency_key not in stored]
    if missing:
        Action.objects.bulk_create(missing, ignore_conflicts=True)
        stored = _by_key(drafts)
    _tell_requested([action for action in missing if stored[action.idempotency_key] == action], actor)
    return [stored[action.idempotency_key] for action in drafts]


def _by_key(drafts: Sequence[Action]) -> dict[str, Action]:
    rows = Action.objects.filter(idempotency_key__in=[action.idempotency_key for action in drafts])
    return {row.idempotency_key: row for row in rows}


def _tell_requested(new: Sequence[Action], actor: Actor) -> None:
    if not new:
        return
    actions.announce_change(new[0])
    announce(organization_id=new[0].organization_id, topic="agent", cluster_id=str(new[0].cluster_id))
    record_all(
        actor=actor,
        entries=[
            actions.entry_of(
                action,
                "requested",
                rules.sentence(kind=action.kind, status="requested", target=action.target),
                after=dict(action.params),
            )
            for action in new
        ],
    )


def claim_for_agent(
    *, cluster_id: UUID, agent_id: str, deliver: Deliver[Delivery], limit: int = 10
) -> list[Delivery]:
    """Give the agent its pending actions, each to one caller only; return what ``deliver`` made of them.

    What cannot wait goes first: reactions before plans, and cordons before drains; then the oldest.

    Each is judged again on fresh state; what the safety floor forbids now is marked refused instead. Those
    that do not depend on the other nodes are claimed together. The others are claimed and delivered in a
    transaction each: a refusal locks the record until the commit, and nobody may wait for another action
    meanwhile.
    """
    mine = Action.objects.filter(_waits_for_agent(utcnow()), cluster_id=cluster_id)
    simple: list[Action] = []
    careful: list[Action] = []
    for action in mine.order_by(*_URGENT_FIRST)[:limit]:
        (careful if _looks_at_nodes(action) else simple).append(action)
    deliveries = list(_claim_together(cluster_id, simple, agent_id, deliver)) if simple else []
    for action in careful:
        with transaction.atomic():
            if actions.claim(action=action, claimed_by=agent_id):
                deliveries += deliver([action])
    return deliveries


@transaction.atomic
def claim_for_agents(
    *, claimants: Mapping[UUID, Claimant], deliver: Deliver[Delivery]
) -> dict[UUID, list[Delivery]]:
    """Do for many clusters, of any organizations, what ``claim_for_agent`` does for each; return by cluster.

    A cluster is missing where nothing waits, where an action depends on the other nodes, and where one is
    forbidden now: nothing of it is claimed here.
    """
    now = utcnow()
    free = Action.unscoped.select_for_update(of=("self",), skip_locked=True)
    waiting = free.filter(_waits_for_agent(now), cluster_id__in=claimants).order_by(*_URGENT_FIRST)
    facts = switches_of(claimants)
    granted: list[Action] = []
    for cluster_id, rows in _grouped(waiting, lambda action: action.cluster_id).items():
        claimant = claimants[cluster_id]
        first = rows[: claimant.limit]
        if not any(_looks_at_nodes(action) or _forbidden(action, facts[cluster_id]) for action in first):
            granted += _started(first, claimant.agent_id, now)
    _store_started(granted, now)
    deliveries = deliver(granted)
    pairs = _grouped(zip(granted, deliveries, strict=True), lambda pair: pair[0].cluster_id)
    return {cluster_id: [delivery for _, delivery in rows] for cluster_id, rows in pairs.items()}


_URGENT_FIRST = ("is_voluntary", Case(When(kind=Action.Kind.CORDON_NODE, then=0), default=1), "created_at")


_START = """
UPDATE actions a SET status = 'running', claimed_by = s.agent_id, claimed_at = %(now)s,
    lease_until = s.lease_until, updated_at = %(now)s
FROM unnest(%(ids)s::uuid[], %(agents)s::text[], %(leases)s::timestamptz[]) AS s(id, agent_id, lease_until)
WHERE a.id = s.id
"""


def _waits_for_agent(now: datetime) -> Q:
    return Q(route=Action.Route.AGENT, status=Action.Status.PENDING, expires_at__gt=now)


def _looks_at_nodes(action: Action) -> bool:
    return rules.looks_at_nodes(action.kind, is_voluntary=action.is_voluntary)


def _forbidden(action: Action, facts: ClusterFacts) -> Verdict | None:
    return judge(
        kind=action.kind,
        instance_id=str(action.params.get("instance_id", "")),
        is_voluntary=action.is_voluntary,
        facts=facts,
    )


@transaction.atomic
def _claim_together(
    cluster_id: UUID, wanted: Sequence[Action], agent_id: str, deliver: Deliver[Delivery]
) -> Sequence[Delivery]:
    now = utcnow()
    free = Action.objects.select_for_update(of=("self",), skip_locked=True).filter(
        _waits_for_agent(now), pk__in=[action.pk for action in wanted]
    )
    mine = set(free.values_list("pk", flat=True))
    facts = cluster_facts(cluster_id, with_nodes=False)
    granted: list[Action] = []
    for action in (action for action in wanted if action.pk in mine):
        verdict = _forbidden(action, facts)
        if verdict is not None:
            actions.refuse(action, verdict)
        else:
            granted.append(action)
    _store_started(_started(granted, agent_id, now), now)
    return deliver(granted)


def _started(granted: Sequence[Action], agent_id: str, now: datetime) -> Sequence[Action]:
    for action in granted:
        action.status, action.claimed_by = Action.Status.RUNNING, agent_id
        action.claimed_at, action.lease_until = now, now + rules.lease(action.kind)
    return granted


def _store_started(granted: Sequence[Action], now: datetime) -> None:
    """Store rows that this transaction has locked, and have the pages look at them.

    In SQL, since ``bulk_update`` takes four times as long as all the rest of a claim.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            _START,
            {
                "ids": [action.pk for action in granted],
                "agents": [action.claimed_by for action in granted],
                "leases": [action.lease_until for action in granted],
                "now": now,
            },
        )
    for rows in _grouped(granted, lambda action: (action.cluster_id, action.plan_id)).values():
        actions.announce_change(rows[0])


def _grouped(rows: Iterable[_Row], key: Callable[[_Row], _Key]) -> dict[_Key, list[_Row]]:
    groups: dict[_Key, list[_Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
