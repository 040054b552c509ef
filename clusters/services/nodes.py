"""Keep the rows true to what the actuator just did, before the next scan sees it."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F

from audit.services import Subject, record
from clusters.domain.back_off import FORGOTTEN_AFTER, next_back_off_seconds
from clusters.domain.capacity import SPOTOPT_GROUP, FoundInstance, PoolRefusal, ScalingGroup
from clusters.domain.interruptions import TAKEN_BACK
from clusters.models import Action, Cluster, Instance, NodeGroup, PoolState, Price
from clusters.selectors.guard import ALIVE
from clusters.selectors.market import price_of
from clusters.services.ledger import requested_cpu_millis
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow


@transaction.atomic
def record_launch(*, action: Action, found: FoundInstance) -> Instance:
    """Return the row of an instance that an action launched, made or completed."""
    cluster = action.cluster
    is_over = found.state == Instance.State.TERMINATED
    group, _ = NodeGroup.objects.get_or_create(
        organization_id=cluster.organization_id,
        cluster=cluster,
        name=SPOTOPT_GROUP,
        defaults={"kind": NodeGroup.Kind.SPOTOPT, "last_seen_at": utcnow()},
    )
    quote = price_of(
        region=cluster.region,
        zone_id=found.az_id,
        instance_type=found.instance_type,
        capacity_type=found.lifecycle,
    )
    row, _ = Instance.objects.update_or_create(
        account_id=cluster.account_id,
        instance_id=found.instance_id,
        defaults={
            **_booking(action, found),
            "organization_id": cluster.organization_id,
            "cluster": cluster,
            "node_group": group,
            "instance_type": found.instance_type,
            "lifecycle": found.lifecycle,
            "region": cluster.region,
            "az": found.az,
            "az_id": found.az_id,
            "state": found.state,
            "terminated_at": (found.ended_at or utcnow()) if is_over else None,
            "termination_reason": found.end_reason[:255] if is_over else "",
            "price": quote.usd_per_hour if quote else _planned_usd(action),
            "price_is_estimate": quote is None or quote.source == Price.Source.ESTIMATE,
            "launched_at": found.launched_at,
            "launch_action_id": action.pk,
            "last_seen_at": utcnow(),
        },
    )
    return row


def _planned_usd(action: Action) -> Decimal | None:
    """Return the price that the launch was chosen for: its cost is subtracted even where none is known."""
    told = action.params.get("usd_per_hour")
    return Decimal(str(told)) if told else None


def _booking(action: Action, found: FoundInstance) -> dict[str, object]:
    """Return under which plan the instance's hours are booked, and against which load.

    What replaces a node that AWS took goes on where that node stood: under its plan when a plan had launched
    it, else not at all, since the customer's own group would have launched as much.
    """
    replaced = Instance.objects.filter(
        account_id=action.cluster.account_id, instance_id=action.params.get("replaces", "")
    ).first()
    if replaced is None:
        load = requested_cpu_millis(action.cluster_id)
        return {"changed_by_plan_id": action.plan_id, "requests_baseline_millis": load}
    is_ours = replaced.launch_action_id is not None
    return {
        "changed_by_plan_id": replaced.changed_by_plan_id if is_ours else None,
        "requests_baseline_millis": replaced.requests_baseline_millis if is_ours else None,
        "booking_ended_at": replaced.booking_ended_at if is_ours else found.launched_at,
    }


@transaction.atomic
def record_termination(*, action: Action, found: FoundInstance | None, is_ours: bool) -> Instance | None:
    """Mark the action's instance as ending and return its row; None when no scan ever saw it.

    It has ended, and AWS bills it no more, where ``found`` shows that, or is None since AWS knows it no more.
    What anybody else ended is no saving of ours, nor what AWS took away by itself.
    """
    row = (
        Instance.objects.select_for_update(of=("self",), no_key=True)
        .filter(account_id=action.cluster.account_id, instance_id=action.params["instance_id"])
        .first()
    )
    if row is None or TAKEN_BACK in row.termination_reason:
        return row
    was_alive = row.state in ALIVE
    told = found.end_reason if found else ""
    is_told = bool(told) and (TAKEN_BACK in told or not is_ours)
    _mark_ending(row, found, reason=told if is_told else action.reason)
    if is_ours and TAKEN_BACK not in row.termination_reason:
        row.changed_by_plan_id = row.changed_by_plan_id or action.plan_id
        if row.requests_baseline_millis is None:
            row.requests_baseline_millis = requested_cpu_millis(action.cluster_id)
        row.placements.all().delete()
        if was_alive and row.node_group is not None and row.node_group.desired_capacity:
            _shrink(row.node_group)
    row.save()
    return row


def _mark_ending(row: Instance, found: FoundInstance | None, *, reason: str) -> None:
    """Mark the row as stopping, or as terminated since when AWS says."""
    row.is_ready = False
    if row.state == Instance.State.TERMINATED:
        return
    has_ended = found is None or found.state == Instance.State.TERMINATED
    row.state = Instance.State.TERMINATED if has_ended else Instance.State.STOPPING
    ended_at = (found.ended_at if found else None) or utcnow()
    row.terminated_at = min(ended_at, utcnow()) if has_ended else None
    row.termination_reason = reason[:255]


def _shrink(group: NodeGroup) -> None:
    desired = group.desired_capacity - 1
    NodeGroup.objects.filter(pk=group.pk).update(
        desired_capacity=desired, min_size=min(group.min_size, desired)
    )


def record_detached(*, cluster: Cluster, group_name: str) -> None:
    """Write down that a group asks for one node less."""
    NodeGroup.objects.filter(cluster=cluster, asg_name=group_name, desired_capacity__gt=F("min_size")).update(
        desired_capacity=F("desired_capacity") - 1, updated_at=utcnow()
    )


@transaction.atomic
def record_lowered_minimum(*, cluster: Cluster, group: ScalingGroup, minimum: int) -> bool:
    """Remember the minimum that a group had before Spotopt first lowered it; tell whether there is a row.

    A group that no scan has found could not be given its minimum back.
    """
    row = NodeGroup.objects.select_for_update().filter(cluster=cluster, asg_name=group.name).first()
    if row is None:
        return False
    if row.original_min_size is None:
        row.original_min_size = group.min_size
        row.save(update_fields=["original_min_size", "updated_at"])
    record(
        actor=Actor.system(row.organization_id),
        event="clusters.group.minimum_lowered",
        sentence=f"Lowered the minimum of {row.name} from {group.min_size} to {minimum}",
        subject=Subject("node_group", str(row.pk), row.name),
        account_id=cluster.account_id,
        cluster_id=cluster.pk,
        before={"minimum": group.min_size},
        after={"minimum": minimum, "original": row.original_min_size},
    )
    return True


def record_restored_minimum(*, cluster: Cluster, group: ScalingGroup) -> None:
    """Write down a group's sizes after its minimum was restored, and that plans keep it from now on."""
    NodeGroup.objects.filter(cluster=cluster, asg_name=group.name).update(
        min_size=group.min_size,
        desired_capacity=group.desired,
        max_size=group.max_size,
        original_min_size=None,
        keeps_minimum=True,
        updated_at=utcnow(),
    )


def keeps_minimum(*, cluster: Cluster, group_name: str) -> bool:
    """Tell whether a person had the group's minimum restored, so that it must not be lowered."""
    return NodeGroup.objects.filter(cluster=cluster, asg_name=group_name, keeps_minimum=True).exists()


def resting_pools(zone_ids: Iterable[str]) -> set[tuple[str, str, str]]:
    """Return the pools (zone id, instance type, capacity type) that had no capacity a moment ago."""
    rows = PoolState.objects.filter(zone_id__in=list(zone_ids), back_off_until__gt=utcnow())
    return set(rows.values_list("zone_id", "instance_type", "capacity_type"))


def record_dry_pools(
    region: str,
    capacity_type: str,
    refusals: Iterable[PoolRefusal],
    zone_ids: Mapping[str, str],
) -> None:
    """Leave pools that had no capacity alone for a while: 3 minutes at first, then twice as long.

    ``zone_ids`` gives the zone of each subnet.
    A pool that was well for half an hour after its last pause starts again with the shortest.
    """
    now = utcnow()
    for refusal in refusals:
        zone_id = zone_ids.get(refusal.subnet_id, "")
        if not zone_id or "Capacity" not in refusal.code:
            continue
        state, _ = PoolState.objects.get_or_create(
            zone_id=zone_id,
            instance_type=refusal.instance_type,
            capacity_type=capacity_type,
            defaults={"region": region},
        )
        if state.back_off_until is not None and state.back_off_until > now:
            continue
        rested = state.back_off_until is None or now - state.back_off_until > FORGOTTEN_AFTER
        state.back_off_seconds = next_back_off_seconds(0 if rested else state.back_off_seconds)
        state.back_off_until = now + timedelta(seconds=state.back_off_seconds)
        state.last_error = f"{refusal.code}: {refusal.message}"[:255]
        state.save()
