"""Answer AWS's notices with capacity: at once when it takes a node, slowly when it only may."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet

from clusters.domain.interruptions import FLAG_LASTS, REBALANCE_PACE, rebalance_budget
from clusters.models import Action, Cluster, Instance, Interruption
from clusters.selectors.guard import ALIVE
from clusters.services.interruptions import action_key, end, note_replacement, request_for
from policies.domain.document import parse, resolve
from policies.domain.eligibility import pods_by_node, under_policy
from policies.domain.plan import Launch
from policies.domain.replacement import Choice, Lost, replacements
from policies.selectors.snapshot import cluster_snapshot, offers
from policies.services.policies import default_policy_for, surges_single_replicas
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated

TAKE_OVER_AFTER = timedelta(seconds=15)
"""A decision that was begun this long ago and left no trace is made again."""
REBALANCE_PATIENCE = timedelta(minutes=15)
"""A rebalance signal that could not be served for this long is let go."""
Kind, Status = Interruption.Kind, Interruption.Status


def answer_interruptions() -> int:
    """Launch what replaces interrupted nodes, and serve rebalance signals; return how many were launched."""
    by_cluster: dict[Cluster, list[Interruption]] = defaultdict(list)
    for row in _open(Kind.INTERRUPTION).filter(_undecided()):
        if _claim(row):
            by_cluster[row.cluster].append(row)
    _take_out_of_groups()
    launched = sum(_replace(cluster, rows, is_voluntary=False) for cluster, rows in by_cluster.items())
    return launched + _serve_rebalances()


def _open(kind: str) -> QuerySet[Interruption]:
    rows = Interruption.objects.filter(status=Status.OPEN, kind=kind, instance__state__in=ALIVE)
    return rows.select_related("instance__node_group", "cluster__account").order_by("noticed_at")


def _undecided() -> Q:
    left = Q(replacement_action_id=None, note="", replacement_decided_at__lt=utcnow() - TAKE_OVER_AFTER)
    return Q(replacement_decided_at=None) | left


def _claim(row: Interruption) -> bool:
    """Take the decision on; tell whether nobody else did."""
    rows = Interruption.objects.filter(pk=row.pk, replacement_decided_at=row.replacement_decided_at)
    return rows.update(replacement_decided_at=utcnow()) == 1


def _replace(cluster: Cluster, rows: Sequence[Interruption], *, is_voluntary: bool) -> int:
    """Request one launch for each node that needs one, and keep on each row what was decided."""
    try:
        choices = _choices(cluster, rows)
    except Conflict as problem:  # no report yet, or a policy that leaves nothing to launch
        choices = {row.instance.node_name: Choice("", None, problem.detail) for row in rows}
    unknown = Choice("", None, "The node's size or price is not known.")
    return sum(_carry_out(row, choices.get(row.instance.node_name, unknown), is_voluntary) for row in rows)


def _carry_out(row: Interruption, choice: Choice, is_voluntary: bool) -> bool:
    """Request the chosen launch and keep what was decided; tell whether there is one."""
    action, note = None, choice.reason
    if choice.launch is not None:
        try:
            action = _launch(row, choice.launch, is_voluntary=is_voluntary)
        except GuardrailViolated as refusal:
            note = refusal.detail
    note_replacement(row=row, action=action, note=note)
    return action is not None


def _choices(cluster: Cluster, rows: Sequence[Interruption]) -> dict[str, Choice]:
    policy = default_policy_for(cluster)
    rules = resolve(policy.config, policy.template)
    snapshot = under_policy(cluster_snapshot(cluster.pk), rules)
    noticed = {row.instance.node_name: row.pods_at_notice for row in rows}
    pods = pods_by_node(snapshot)
    lost = [
        Lost(node, pods.get(node.id, {}), noticed[node.id]) for node in snapshot.nodes if node.id in noticed
    ]
    chosen = replacements(
        snapshot=snapshot, lost=lost, offers=offers(snapshot), rules=rules, shunned=_shunned(cluster),
        now=utcnow(),
    )  # fmt: skip
    return {choice.node_id: choice for choice in chosen}


def _shunned(cluster: Cluster) -> frozenset[tuple[str, str]]:
    """Return the pools from which AWS took, or may take, nodes of the organization within the half hour."""
    rows = Interruption.objects.filter(region=cluster.region, noticed_at__gt=utcnow() - FLAG_LASTS)
    return frozenset(rows.values_list("zone_id", "instance_type"))


def _take_out_of_groups() -> None:
    """Once a node is replaced, keep the group that it belongs to from replacing it a second time."""
    launched = Action.objects.filter(kind=Action.Kind.LAUNCH_NODE, status=Action.Status.SUCCEEDED)
    rows = _open(Kind.INTERRUPTION).filter(replacement_action_id__in=launched.values("pk"))
    for row in rows.exclude(instance__node_group=None).exclude(instance__node_group__asg_name=""):
        group = row.instance.node_group
        assert group is not None  # noqa: S101  # by the filter
        params: dict[str, object] = {"group_name": group.asg_name, "instance_id": row.instance.instance_id}
        with suppress(GuardrailViolated):  # a freeze; the next look asks again
            request_for(
                row, Action.Kind.DETACH_INSTANCE, target=row.instance.node_name, params=params,
                reason=f"It is replaced; {group.name} need not replace it too.", is_voluntary=False,
            )  # fmt: skip


def _launch(row: Interruption, launch: Launch, *, is_voluntary: bool) -> Action:
    return request_for(
        row,
        Action.Kind.LAUNCH_NODE,
        target=f"for {row.instance.node_name}"[:255],
        params={
            "instance_type": launch.instance_type,
            "zone": launch.zone,
            "zone_id": launch.zone_id,
            "capacity_type": launch.capacity_type.value,
            "usd_per_hour": str(launch.usd_per_hour),
            "alternatives": list(launch.alternatives),
            "replaces": row.instance.instance_id,
        },
        reason=f"Replaces {row.instance.node_name}, which AWS takes back."
        if row.kind == Kind.INTERRUPTION
        else f"Replaces {row.instance.node_name}, which AWS may take back soon.",
        is_voluntary=is_voluntary,
    )


# --- rebalance signals: replaced one at a time, the new node first -----------------------------------------


def _serve_rebalances() -> int:
    by_cluster: dict[Cluster, list[Interruption]] = defaultdict(list)
    taken = _open(Kind.INTERRUPTION).values("instance")
    for row in _open(Kind.REBALANCE).exclude(instance__in=taken):  # the interruption's answer comes first
        by_cluster[row.cluster].append(row)
    return sum(_serve(cluster, rows) for cluster, rows in by_cluster.items())


def _serve(cluster: Cluster, rows: Sequence[Interruption]) -> int:
    now = utcnow()
    if parse(default_policy_for(cluster).config).provisioning.on_rebalance == "watch":
        for row in rows:
            end(row, Status.WATCHED, now, "The policy leaves nodes alone until AWS takes them.")
        return 0
    under_way = [row for row in rows if row.replacement_action_id]
    for row in under_way:
        _advance(row, now)
    waiting = [row for row in rows if not row.replacement_action_id]
    for row in waiting:
        if now - row.noticed_at > REBALANCE_PATIENCE:
            end(row, Status.WATCHED, now, "More signals than may be served at once; the node stays.")
    budget = _budget(cluster, len(under_way), now)
    chosen = [row for row in waiting if now - row.noticed_at <= REBALANCE_PATIENCE][:budget]
    return _replace(cluster, chosen, is_voluntary=True) if chosen else 0


def _budget(cluster: Cluster, under_way: int, now: datetime) -> int:
    served = Interruption.objects.filter(
        cluster=cluster,
        kind=Kind.REBALANCE,
        replacement_action_id__isnull=False,
        replacement_decided_at__gt=now - REBALANCE_PACE,
    )
    nodes = cluster.instances.filter(state__in=ALIVE).exclude(node_name="").count()
    return rebalance_budget(nodes=nodes, served_lately=served.count(), under_way=under_way)


_STEPS = (Action.Kind.CORDON_NODE, Action.Kind.DRAIN_NODE, Action.Kind.TERMINATE_INSTANCE)


def _advance(row: Interruption, now: datetime) -> None:
    """Ask for the next step on the old node once the last one succeeded; let go when one failed."""
    launch = Action.objects.get(idempotency_key=action_key(row, Action.Kind.LAUNCH_NODE))
    if launch.status in _FAILED:
        end(row, Status.WATCHED, now, launch.error_message or "No replacement could be launched.")
        return
    replacement = Instance.objects.filter(launch_action_id=launch.pk, state__in=ALIVE).first()
    if replacement is None or not replacement.is_ready:
        return
    for kind in _STEPS:
        action = Action.objects.filter(idempotency_key=action_key(row, kind)).first()
        if action is None:
            _request_step(row, kind)
            return
        if action.status in _FAILED:
            _let_go(row, action, now)
            return
        if action.status != Action.Status.SUCCEEDED:
            return


_FAILED = frozenset(
    {Action.Status.FAILED, Action.Status.REFUSED, Action.Status.EXPIRED, Action.Status.CANCELLED}
)


def _request_step(row: Interruption, kind: str, *, is_voluntary: bool = True) -> None:
    node = row.instance
    params: dict[str, object] = {"node_name": node.node_name, "instance_id": node.instance_id}
    if kind == Action.Kind.DRAIN_NODE and surges_single_replicas(row.cluster):
        params["surge"] = True
    try:
        request_for(
            row,
            kind,
            target=node.node_name,
            params=params,
            reason="AWS may take the node back soon; its replacement is ready.",
            is_voluntary=is_voluntary,
        )
    except GuardrailViolated:
        return  # the safety floor has no room for it now; the next look asks again


def _let_go(row: Interruption, failed: Action, now: datetime) -> None:
    """Leave the node after all, open to pods; what was launched is taken away by the next plan."""
    if failed.kind != Action.Kind.CORDON_NODE:
        _request_step(row, Action.Kind.UNCORDON_NODE, is_voluntary=False)
    end(row, Status.WATCHED, now, failed.error_message or f"Could not {failed.get_kind_display().lower()}.")


def undecided_organizations() -> set[UUID]:
    """Return the organizations with notices that are not answered."""
    rows = Interruption.unscoped.filter(status=Status.OPEN)
    return set(rows.values_list("organization_id", flat=True))
