"""Bring the rows of one region in line with what AWS showed, in one short transaction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q

from accounts.models import Account
from clusters.domain.capacity import FoundInstance, RegionInventory, environment_of
from clusters.models import Cluster, Instance, NodeGroup
from clusters.services import market
from clusters.services.bulk import upsert
from spotopt.core.clock import utcnow

SETTLING = timedelta(minutes=5)
"""AWS may take this long to show a new instance everywhere, so a younger one is never taken for gone."""
INSTANCE_COLUMNS = (
    "organization_id", "account_id", "cluster_id", "node_group_id", "instance_id", "instance_type",
    "lifecycle", "region", "az", "az_id", "state", "launched_at", "last_seen_at", "launch_action_id",
)  # fmt: skip
GROUP_FIELDS = (
    "kind", "asg_name", "launch_template_id", "launch_template_version", "subnet_ids", "instance_types",
    "min_size", "desired_capacity", "max_size", "spot_enabled", "labels", "taints", "last_seen_at",
    "updated_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RegionDiff:
    """What changed in a region since it was last read."""

    clusters: int
    instances: int
    new: int
    changed: int
    terminated: int
    changed_clusters: frozenset[UUID]
    """Clusters to tell open pages about."""

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing changed."""
        return not (self.new or self.changed or self.terminated)


@transaction.atomic
def apply_region(*, account: Account, inventory: RegionInventory) -> RegionDiff:
    """Write a completely read region; applying the same reading twice changes nothing more."""
    clusters = _write_clusters(account, inventory)
    groups = _write_groups(account, inventory, clusters)
    alive = _still_ending(account, [each for each in inventory.instances if each.state != "terminated"])
    written = upsert(
        Instance,
        columns=INSTANCE_COLUMNS,
        rows=[_row(account, inventory, instance, clusters, groups) for instance in alive],
        key=("account_id", "instance_id"),
        update=("cluster_id", "node_group_id", "instance_type", "lifecycle", "az", "az_id", "state",
                "launch_action_id"),
        keep_when_null=("cluster_id", "node_group_id", "launch_action_id"),
        unless="t.state = 'terminated'",
    )  # fmt: skip
    ended = mark_ended(account, inventory.instances, inventory.read_at)
    gone = _mark_gone(account, inventory, [instance.instance_id for instance in alive])
    market.price_instances(region=inventory.region, account_id=account.pk)
    diff_is_empty = not (written.inserted or written.updated or ended or gone)
    return RegionDiff(
        clusters=len(clusters),
        instances=len(alive),
        new=written.inserted,
        changed=written.updated,
        terminated=ended + gone,
        changed_clusters=frozenset() if diff_is_empty else frozenset(clusters.values()),
    )


def _write_clusters(account: Account, inventory: RegionInventory) -> dict[str, UUID]:
    """Return the row of each cluster that AWS shows, by name."""
    rows = Cluster.objects.filter(account=account, region=inventory.region)
    names = [found.name for found in inventory.clusters]
    rows.filter(name__in=names, removed_at__isnull=False).update(status=Cluster.Status.DISCOVERED)
    upsert(
        Cluster,
        columns=("organization_id", "account_id", "name", "region", "arn", "vpc_id", "api_endpoint",
                 "k8s_version", "environment", "tags", "last_synced_at", "removed_at"),
        rows=[
            (account.organization_id, account.pk, found.name, inventory.region, found.arn, found.vpc_id,
             found.endpoint, found.version, environment_of(found.name, found.tags), dict(found.tags),
             inventory.read_at, None)
            for found in inventory.clusters
        ],
        key=("account_id", "region", "name"),
        update=("arn", "vpc_id", "api_endpoint", "k8s_version", "tags", "last_synced_at", "removed_at"),
    )  # fmt: skip
    rows.filter(removed_at=None, created_at__lt=inventory.read_at).exclude(name__in=names).update(
        removed_at=utcnow(), status=Cluster.Status.INACTIVE, updated_at=utcnow()
    )
    return dict(rows.filter(name__in=names).values_list("name", "pk"))


def _write_groups(
    account: Account, inventory: RegionInventory, clusters: Mapping[str, UUID]
) -> dict[tuple[UUID, str], UUID]:
    """Return the row of each node group by (cluster, Auto Scaling group or own name)."""
    now = utcnow()
    rows = [
        NodeGroup(
            organization_id=account.organization_id,
            cluster_id=clusters[found.cluster_name],
            name=found.name,
            kind=found.kind,
            asg_name=found.asg_name,
            launch_template_id=found.launch_template.id if found.launch_template else "",
            launch_template_version=found.launch_template.version if found.launch_template else "",
            subnet_ids=list(found.subnet_ids),
            instance_types=list(found.instance_types),
            min_size=found.min_size,
            desired_capacity=found.desired,
            max_size=found.max_size,
            spot_enabled=found.is_spot_enabled,
            labels=dict(found.labels),
            taints=[dict(taint) for taint in found.taints],
            last_seen_at=inventory.read_at,
            updated_at=now,
        )
        for found in inventory.node_groups
        if found.cluster_name in clusters
    ]
    if rows:
        NodeGroup.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["cluster", "name"], update_fields=list(GROUP_FIELDS)
        )
    known = NodeGroup.objects.filter(cluster__in=clusters.values())
    known.exclude(kind=NodeGroup.Kind.SPOTOPT).filter(last_seen_at__lt=inventory.read_at).exclude(
        max_size=0
    ).update(min_size=0, desired_capacity=0, max_size=0, updated_at=now)
    return {
        (cluster_id, asg_name or name): pk
        for cluster_id, asg_name, name, pk in known.values_list("cluster_id", "asg_name", "name", "pk")
    }


def _row(
    account: Account,
    inventory: RegionInventory,
    instance: FoundInstance,
    clusters: Mapping[str, UUID],
    groups: Mapping[tuple[UUID, str], UUID],
) -> Sequence[object]:
    cluster_id = clusters.get(instance.cluster_name)
    group_name = instance.group_key[1]
    group_id = groups.get((cluster_id, group_name)) if cluster_id and group_name else None
    return (
        account.organization_id, account.pk, cluster_id, group_id, instance.instance_id,
        instance.instance_type, instance.lifecycle, inventory.region, instance.az, instance.az_id,
        instance.state, instance.launched_at, inventory.read_at, instance.launch_action_id,
    )  # fmt: skip


def _still_ending(account: Account, alive: Sequence[FoundInstance]) -> list[FoundInstance]:
    """Keep what Spotopt ended as stopping for as long as AWS, or a hook of its group, lets it run."""
    ending = set(
        Instance.objects.filter(account=account, state=Instance.State.STOPPING)
        .exclude(termination_reason="")
        .values_list("instance_id", flat=True)
    )
    return [replace(each, state="stopping") if each.instance_id in ending else each for each in alive]


def mark_ended(account: Account, instances: Iterable[FoundInstance], read_at: datetime) -> int:
    """Mark the instances that AWS shows as ended, with AWS's instant and reason where it gives them."""
    ended = [instance for instance in instances if instance.state == "terminated"]
    if not ended:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE instances SET state = 'terminated', is_ready = false, updated_at = %s, "
            "terminated_at = LEAST(COALESCE(v.ended_at, %s), %s), termination_reason = left(v.reason, 255) "
            "FROM unnest(%s::text[], %s::timestamptz[], %s::text[]) AS v(id, ended_at, reason) "
            "WHERE instances.account_id = %s AND instances.instance_id = v.id AND state <> 'terminated'",
            [
                utcnow(),
                read_at,
                read_at,
                [instance.instance_id for instance in ended],
                [instance.ended_at for instance in ended],
                [instance.end_reason for instance in ended],
                account.pk,
            ],
        )
        return int(cursor.rowcount)


def _mark_gone(account: Account, inventory: RegionInventory, seen: Sequence[str]) -> int:
    """Stamp what was seen; what AWS no longer shows at all has ended, unless it is too young to tell."""
    rows = Instance.objects.filter(account=account, region=inventory.region).exclude(
        state=Instance.State.TERMINATED
    )
    rows.filter(instance_id__in=seen).update(last_seen_at=inventory.read_at)
    settled = inventory.read_at - SETTLING
    missing = rows.filter(
        Q(last_seen_at=None) | Q(last_seen_at__lt=inventory.read_at),
        launched_at__lt=settled,
    ).exclude(instance_id__in=seen)
    return missing.update(
        state=Instance.State.TERMINATED,
        terminated_at=inventory.read_at,
        termination_reason="AWS no longer shows it",
        is_ready=False,
        updated_at=utcnow(),
    )
