"""Answer AWS's notices with capacity: at once when it takes a node, slowly when it only may."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import dropwhile
from uuid import UUID

from django.db.models import Q, QuerySet

from clusters.domain.interruptions import FLAG_LASTS, REBALANCE_PACE, rebalance_budget
from clusters.models import Action, Cluster, Instance, Interruption, NodeGroup
from clusters.selectors.guard import ALIVE
from clusters.services.actions import request_action
from clusters.services.interruptions import action_key, end, note_replacement, request_for
from policies.domain.document import parse, resolve
from policies.domain.eligibility import pods_by_node, under_policy
from policies.domain.plan import Launch
from policies.domain.progress import MAX_ATTEMPTS, STOP_CODES, is_late
from policies.domain.replacement import Choice, Lost, replacements
from policies.selectors.snapshot import cluster_snapshot, node_of, offers
from policies.services.policies import default_policy_for, surges_single_replicas
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict, GuardrailViolated

DECIDED_ANEW_AFTER = timedelta(seconds=15)
"""A notice without a replacement, for whatever reason, is looked at again after this long."""
WATCHED_FOR = timedelta(minutes=30)
"""For this long after a notice its replacement is watched, until it is Ready."""
REBALANCE_PATIENCE = timedelta(minutes=15)
"""A rebalance signal that could not be served for this long is let go."""
Kind, Status = Interruption.Kind, Interruption.Status


def answer_interruptions() -> int:
    """Launch what replaces interrupted nodes, and serve rebalance signals; return how many were launched."""
    by_cluster: dict[Cluster, list[Interruption]] = defaultdict(list)
    for row in _due():
        if _claim(row) and not _adopt(row):
            by_cluster[row.cluster].append(row)
    _take_out_of_groups()
    launched = sum(_replace(cluster, rows, is_voluntary=False) for cluster, rows in by_cluster.items())
    return launched + _serve_rebalances()


def _open(kind: str) -> QuerySet[Interruption]:
    rows = Interruption.objects.filter(status=Status.OPEN, kind=kind, instance__state__in=ALIVE)
    return rows.select_related("instance__node_group", "cluster__account").order_by("noticed_at")


def _replaced() -> QuerySet[Interruption]:
    """Return the interruptions whose replacement is watched, whether their node is gone or not."""
    rows = Interruption.objects.filter(
        kind=Kind.INTERRUPTION, status__in=(Status.OPEN, Status.TAKEN),
        noticed_at__gt=utcnow() - WATCHED_FOR, replacement_action_id__isnull=False,
    )  # fmt: skip
    return rows.select_related("instance__node_group", "cluster__account").order_by("noticed_at")


def _due() -> list[Interruption]:
    """Return the notices to decide on: those without a replacement, or with one that came to nothing."""
    long_ago = utcnow() - DECIDED_ANEW_AFTER
    undecided = _open(Kind.INTERRUPTION).filter(
        Q(replacement_decided_at=None) | Q(replacement_decided_at__lt=long_ago), replacement_action_id=None
    )
    undecided = undecided.exclude(instance__node_group__kind=NodeGroup.Kind.KARPENTER)
    replaced = list(_replaced().filter(replacement_decided_at__lt=long_ago))
    launches = Action.objects.in_bulk([row.replacement_action_id for row in replaced])
    machines = _machines(replaced)
    failed = [
        row
        for row, machine in zip(replaced, machines, strict=True)
        if row.replacement_action_id in launches
        and _came_to_nothing(row, launches[row.replacement_action_id], machine)
    ]
    return [*undecided, *failed]


def _machines(rows: Sequence[Interruption]) -> list[Instance | None]:
    """Return for each notice the instance that its replacement's launch made."""
    wanted = [row.replacement_action_id for row in rows]
    found = {each.launch_action_id: each for each in Instance.objects.filter(launch_action_id__in=wanted)}
    return [found.get(launch_id) for launch_id in wanted]


def _came_to_nothing(row: Interruption, launch: Action, machine: Instance | None) -> bool:
    """Tell whether a launch failed or its node never became Ready; what is left of it is given back."""
    if launch.status != Action.Status.SUCCEEDED or machine is None:
        return launch.status in _FAILED
    if machine.state not in ALIVE:
        return not machine.node_name
    return not machine.is_ready and _is_late(row, launch) and _give_back(row, machine)


def _is_late(row: Interruption, launch: Action) -> bool:
    return is_late(launched_at=launch.finished_at, seen_at=row.cluster.snapshot_at)


def _give_back(row: Interruption, machine: Instance) -> bool:
    """Have a machine that is not Ready in time terminated; tell whether the safety floor allows it."""
    try:
        request_action(
            cluster=row.cluster,
            kind=Action.Kind.TERMINATE_INSTANCE,
            target=machine.node_name or machine.instance_id,
            params={"node_name": machine.node_name, "instance_id": machine.instance_id},
            reason="The node did not become Ready within five minutes.",
            actor=Actor.system(row.organization_id),
            idempotency_key=f"{machine.launch_action_id}:give back",
            is_voluntary=False,
        )
    except GuardrailViolated:
        return False
    return True


def _claim(row: Interruption) -> bool:
    """Take the decision on; tell whether nobody else did."""
    rows = Interruption.objects.filter(pk=row.pk, replacement_decided_at=row.replacement_decided_at)
    return rows.update(replacement_decided_at=utcnow()) == 1


def _adopt(row: Interruption) -> bool:
    """Count on the node that a rebalance signal had launched already; tell whether there is one."""
    signals = _open(Kind.REBALANCE).filter(instance=row.instance_id)
    ours = Action.objects.filter(pk__in=signals.values("replacement_action_id")).exclude(status__in=_FAILED)
    gone = Instance.objects.filter(launch_action_id__isnull=False).exclude(state__in=ALIVE)
    ours = ours.exclude(pk__in=gone.values("launch_action_id"))
    launch = ours.first() if row.replacement_action_id is None else None
    if launch is not None:
        note_replacement(row=row, action=launch, note="Launched when AWS recommended a rebalance.")
    return launch is not None


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
    action, note, number = None, choice.reason, len(_launches(row)) + 1
    if number > MAX_ATTEMPTS:
        note = f"{MAX_ATTEMPTS} launches came to nothing."
    elif choice.launch is not None:
        try:
            action = _launch(row, choice.launch, number, is_voluntary=is_voluntary)
        except GuardrailViolated as refusal:
            note = refusal.detail
    note_replacement(row=row, action=action, note=note)
    return action is not None


def _launches(row: Interruption) -> list[Action]:
    """Return the launches in the node's place up to the present one, which came to nothing."""
    if row.replacement_action_id is None:
        return []
    launches = Action.objects.filter(cluster=row.cluster, kind=Action.Kind.LAUNCH_NODE)
    earlier = launches.filter(params__replaces=row.instance.instance_id).order_by("-created_at")
    return list(dropwhile(lambda launch: launch.pk != row.replacement_action_id, earlier))


def _choices(cluster: Cluster, rows: Sequence[Interruption]) -> dict[str, Choice]:
    policy = default_policy_for(cluster)
    rules = resolve(policy.config, policy.template)
    snapshot = under_policy(cluster_snapshot(cluster.pk), rules)
    nodes = {node.instance_id: node for node in snapshot.nodes}
    pods = pods_by_node(snapshot)
    lost = []
    for row in rows:
        node = nodes.get(row.instance.instance_id) or node_of(row.instance)  # it may be gone by now
        if node is not None:
            lost.append(Lost(node, pods.get(node.id, {}), row.pods_at_notice))
    tried = {pool for row in rows for launch in _launches(row) for pool in _pools(launch)}
    chosen = replacements(
        snapshot=snapshot, lost=lost, offers=[each for each in offers(snapshot) if each.pool not in tried],
        rules=rules, shunned=_shunned(cluster), now=utcnow(),
    )  # fmt: skip
    return {choice.node_id: choice for choice in chosen}


def _pools(launch: Action) -> list[str]:
    params = launch.params
    first = f"{params['zone_id']}:{params['instance_type']}:{params['capacity_type']}"
    return [first, *params["alternatives"]]


def _shunned(cluster: Cluster) -> frozenset[tuple[str, str]]:
    """Return the pools from which AWS took, or may take, nodes of the organization within the half hour."""
    rows = Interruption.objects.filter(region=cluster.region, noticed_at__gt=utcnow() - FLAG_LASTS)
    return frozenset(rows.values_list("zone_id", "instance_type"))


def _take_out_of_groups() -> None:
    """Once a replacement is Ready, or the node gone, keep the node's group from replacing it too."""
    rows = list(_replaced().exclude(instance__node_group__asg_name=""))
    keys = [action_key(row, Action.Kind.DETACH_INSTANCE) for row in rows]
    asked = set(Action.objects.filter(idempotency_key__in=keys).values_list("idempotency_key", flat=True))
    for row, key, machine in zip(rows, keys, _machines(rows), strict=True):
        group = row.instance.node_group
        if group is None or key in asked or machine is None or machine.state not in ALIVE:
            continue
        if machine.is_ready or row.instance.state not in ALIVE:
            _detach(row, group)


def _detach(row: Interruption, group: NodeGroup) -> None:
    params: dict[str, object] = {"group_name": group.asg_name, "instance_id": row.instance.instance_id}
    with suppress(GuardrailViolated):  # a freeze; the next look asks again
        request_for(
            row, Action.Kind.DETACH_INSTANCE, target=row.instance.node_name, params=params,
            reason=f"It is replaced; {group.name} need not replace it too.", is_voluntary=False,
        )  # fmt: skip


def _launch(row: Interruption, launch: Launch, number: int, *, is_voluntary: bool) -> Action:
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
        number=number,
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
    policy = default_policy_for(cluster)
    if not policy.is_active or parse(policy.config).provisioning.on_rebalance == "watch":
        for row in rows:
            end(row, Status.WATCHED, now, "The policy leaves nodes alone until AWS takes them.")
        return 0
    for row in rows:
        if _is_karpenters(row):
            end(row, Status.WATCHED, now, "Karpenter looks after its nodes itself.")
    rows = [row for row in rows if not _is_karpenters(row)]
    under_way = {row.replacement_action_id: row for row in rows if row.replacement_action_id}
    for launch in Action.objects.filter(pk__in=under_way):
        _advance(under_way[launch.pk], launch, now)
    waiting = [row for row in rows if not row.replacement_action_id]
    for row in waiting:
        if now - row.noticed_at > REBALANCE_PATIENCE:
            end(row, Status.WATCHED, now, "More signals than may be served at once; the node stays.")
    budget = _budget(cluster, len(under_way), now)
    chosen = [row for row in waiting if now - row.noticed_at <= REBALANCE_PATIENCE][:budget]
    return _replace(cluster, chosen, is_voluntary=True) if chosen else 0


def _is_karpenters(row: Interruption) -> bool:
    group = row.instance.node_group
    return group is not None and group.kind == NodeGroup.Kind.KARPENTER


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


def _advance(row: Interruption, launch: Action, now: datetime) -> None:
    """Ask for the next step on the old node once the last one succeeded; let go when one failed."""
    if launch.status in _FAILED:
        _let_go(row, now, launch.error_message or "No replacement could be launched.")
    elif _is_there(row, launch, now):
        _take_next_step(row, launch, now)


def _is_there(row: Interruption, launch: Action, now: datetime) -> bool:
    """Tell whether the replacement is Ready; one that is not in time is given back and the old node kept."""
    machine = Instance.objects.filter(launch_action_id=launch.pk, state__in=ALIVE).first()
    if machine is not None and machine.is_ready:
        return True
    if _is_late(row, launch):
        if machine is not None:
            _give_back(row, machine)
        _let_go(row, now, "Its replacement did not become Ready within five minutes.")
    return False


def _take_next_step(row: Interruption, launch: Action, now: datetime) -> None:
    last = launch
    for kind in _STEPS:
        action = Action.objects.filter(idempotency_key=action_key(row, kind)).first()
        if action is None:
            refusal = _request_step(row, kind, "AWS may take the node back soon; its replacement is ready.")
            is_stuck = now - (last.finished_at or now) > REBALANCE_PATIENCE
            if refusal is not None and (is_stuck or refusal.extra["code"] in STOP_CODES):
                _let_go(row, now, refusal.detail)
            return
        if action.status in _FAILED:
            _let_go(row, now, action.error_message or f"Could not {action.get_kind_display().lower()}.")
            return
        if action.status != Action.Status.SUCCEEDED:
            return
        last = action


_FAILED = frozenset(
    {Action.Status.FAILED, Action.Status.REFUSED, Action.Status.EXPIRED, Action.Status.CANCELLED}
)


def _request_step(
    row: Interruption, kind: str, reason: str, *, is_voluntary: bool = True
) -> GuardrailViolated | None:
    """Request a step on the old node; return the refusal when the safety floor has no room for it now."""
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
            reason=reason,
            is_voluntary=is_voluntary,
        )
    except GuardrailViolated as refusal:
        return refusal
    return None


def _let_go(row: Interruption, now: datetime, why: str) -> None:
    """Leave the node after all, open to pods; what was launched is taken away by the next plan."""
    cordons = Action.objects.filter(idempotency_key=action_key(row, Action.Kind.CORDON_NODE))
    if cordons.exclude(status__in=_FAILED).exists():
        _request_step(row, Action.Kind.UNCORDON_NODE, "The node stays.", is_voluntary=False)
    end(row, Status.WATCHED, now, why)


def undecided_organizations() -> set[UUID]:
    """Return the organizations with notices that are not over, or whose replacements are watched."""
    is_watched = Q(replacement_action_id__isnull=False, noticed_at__gt=utcnow() - WATCHED_FOR)
    rows = Interruption.unscoped.filter(Q(status=Status.OPEN) | Q(status=Status.TAKEN) & is_watched)
    return set(rows.values_list("organization_id", flat=True))
