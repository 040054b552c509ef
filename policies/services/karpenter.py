"""Steer Karpenter: work out the node pools that are wanted, and have the agent apply what differs."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import transaction

from accounts.domain import roles
from accounts.models import Account
from audit.services import Subject, record
from clusters.domain.breakers import MAX_SNAPSHOT_AGE
from clusters.models import Action, Cluster
from clusters.models import NodePool as NodePoolRow
from clusters.services.actions import request_action
from policies.domain import document
from policies.domain.karpenter import STEERED, Market, NodePool, Wanted, Wish, wishes
from policies.models import ClusterPolicy, PoolSteering
from policies.selectors.snapshot import cluster_snapshot, offers
from policies.services.policies import default_policy_for
from spotopt.core import crypto
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated, NotFound
from spotopt.core.live import announce

_SETTLED = (Action.Status.SUCCEEDED, Action.Status.FAILED, Action.Status.CANCELLED)
"""What ended so is not asked for again, unless the wish or the cluster changed, or a person wants it."""


def organizations_with_karpenter() -> set[UUID]:
    """Return the organizations with a reporting cluster in which Karpenter runs."""
    clusters = Cluster.unscoped.filter(karpenter=Cluster.Karpenter.RUNNING, removed_at=None)
    return set(
        clusters.filter(snapshot_at__gt=utcnow() - MAX_SNAPSHOT_AGE).values_list("organization_id", flat=True)
    )


def steer_all() -> int:
    """Steer every reporting cluster of the organization; return how much was asked for."""
    clusters = Cluster.objects.filter(
        karpenter=Cluster.Karpenter.RUNNING, removed_at=None, snapshot_at__gt=utcnow() - MAX_SNAPSHOT_AGE
    ).exclude(account__status=Account.Status.DISCONNECTED)
    return sum(steer(cluster_id=pk) for pk in clusters.values_list("pk", flat=True))


def steer(*, cluster_id: UUID) -> int:
    """Work out what Karpenter is to be told in a cluster and ask for what differs; return how much was asked.

    Where a person decides nothing is asked for, but that ours launches nothing any more.
    """
    policy = default_policy_for(Cluster.objects.select_related("account").get(pk=cluster_id))
    pools = {row.name: _pool(row) for row in NodePoolRow.objects.filter(cluster_id=cluster_id)}
    made = wishes(list(pools.values()), *_wanted(policy))
    return _keep(policy, made, pools)


@transaction.atomic
def _keep(policy: ClusterPolicy, made: Sequence[Wish], pools: Mapping[str, NodePool]) -> int:
    """Keep the wishes and ask for what is due, unless the policy changed meanwhile: its own task follows."""
    unchanged = ClusterPolicy.objects.filter(pk=policy.pk, version=policy.version)
    if unchanged.select_for_update(of=("self",)).first() is None:
        return 0
    cluster = policy.cluster
    PoolSteering.objects.filter(cluster=cluster).exclude(pool__in=[wish.pool for wish in made]).delete()
    steers_itself = policy.mode == ClusterPolicy.Mode.AUTOMATIC and not _approval_required(policy)
    asked = 0
    for wish in made:
        is_due = steers_itself or wish.code != STEERED
        asked += _follow(cluster, wish, pools.get(wish.name), is_due=is_due)
    announce(organization_id=cluster.organization_id, topic="karpenter", cluster_id=str(cluster.pk))
    return asked


@transaction.atomic
def apply_steering(*, cluster_id: UUID, steering_id: UUID, fingerprint: str, actor: Actor) -> PoolSteering:
    """Have the agent apply what is wanted beside a node pool, now, as the person saw it.

    Raises NotFound, GuardrailViolated, and Conflict when nothing is to be applied, when something is under
    way, or when another object is wanted than the one with this fingerprint.
    """
    roles.require_role(actor, roles.MEMBER)
    row = (
        PoolSteering.objects.select_for_update(of=("self",))
        .select_related("cluster__account", "action")
        .filter(pk=steering_id, cluster_id=cluster_id, cluster__removed_at=None)
        .first()
    )
    if row is None:
        raise NotFound("There is no such node pool.")
    if row.manifest is None or row.is_met:
        raise Conflict(f"There is nothing to apply. {row.sentence}", code=row.code)
    if fingerprint != row.fingerprint:
        raise Conflict("Another object is wanted by now. Look at it, and apply that.", code="stale")
    if row.is_under_way:
        raise Conflict("It is being applied.", code="under_way")
    _ask(row, actor, _change_of(row))
    record(
        actor=actor,
        event="policies.karpenter.approved",
        sentence=f"Had {row.name} applied beside Karpenter's {row.pool}",
        subject=Subject("cluster", str(row.cluster_id), row.cluster.name),
        account_id=row.cluster.account_id,
        cluster_id=row.cluster_id,
        after={"manifest": row.manifest},
    )
    return row


def _wanted(policy: ClusterPolicy) -> tuple[Wanted | None, Market]:
    """Return how the policy wants Karpenter steered, None when not at all, and what may be bought."""
    knobs = document.parse(policy.config).karpenter
    if not (policy.is_active and knobs.enabled):
        return None, Market((), utcnow())
    rules = document.resolve(policy.config, policy.template)
    return Wanted(knobs, rules), Market(offers(cluster_snapshot(policy.cluster_id)), utcnow())


def _approval_required(policy: ClusterPolicy) -> bool:
    return document.parse(policy.config).approval.required


def _pool(row: NodePoolRow) -> NodePool:
    return NodePool(
        name=row.name,
        spec=row.spec,
        is_ours=row.is_ours,
        steers=row.steers,
        used=row.used,
        managers=row.managers,
    )


@transaction.atomic
def _follow(cluster: Cluster, wish: Wish, reported: NodePool | None, *, is_due: bool) -> bool:
    """Keep the wish; ask for it where that is due, and tell whether it was asked for."""
    row, _ = PoolSteering.objects.update_or_create(
        cluster=cluster,
        pool=wish.pool,
        defaults={
            "organization_id": cluster.organization_id,
            "name": wish.name,
            "manifest": wish.manifest,
            "code": wish.code,
            "sentence": wish.sentence[:500],
            "is_met": wish.is_met_by(reported),
            "hold": "",
            "looked_at": utcnow(),
        },
    )
    if row.is_met or not is_due or row.is_under_way:
        return False
    change = _change_of(row)
    if _was_settled(row, change):
        return False
    try:
        _ask(row, Actor.system(cluster.organization_id), change)
    except GuardrailViolated as refusal:
        row.hold = refusal.detail[:500]
        row.save(update_fields=["hold", "updated_at"])
        return False
    return True


def _change_of(row: PoolSteering) -> str:
    """Return a digest of what is wanted and of what the cluster has in its place."""
    there = NodePoolRow.objects.filter(cluster_id=row.cluster_id, name=row.name).values_list(
        "spec", flat=True
    )
    return crypto.fingerprint([row.manifest, list(there)])


def _was_settled(row: PoolSteering, change: str) -> bool:
    return row.action is not None and row.asked == change and row.action.status in _SETTLED


def _ask(row: PoolSteering, actor: Actor, change: str) -> None:
    row.revision += 1
    row.action = request_action(
        cluster=row.cluster,
        kind=Action.Kind.APPLY_KARPENTER,
        target=row.name,
        params={"manifest": row.manifest},
        reason=row.sentence,
        actor=actor,
        idempotency_key=f"karpenter:{row.pk}:{row.revision}",
    )
    row.asked, row.hold = change, ""
    row.save(update_fields=["revision", "action", "asked", "hold", "updated_at"])
