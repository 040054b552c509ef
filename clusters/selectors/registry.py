"""Clusters for the API: rows with their measures, one by id, and the totals of all."""

from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, Exists, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from clusters.models import Action, Cluster, Instance, Interruption, NodeGroup, SavingsEntry, Workload
from clusters.selectors.guard import ALIVE
from clusters.selectors.measures import ZERO_USD, node_measures
from spotopt.core.errors import Gone, NotFound


def clusters() -> QuerySet[Cluster]:
    """Return the clusters with the sums over their living nodes and what the ledger booked for each."""
    waiting = Q(instances__state__in=ALIVE, instances__is_ready=False) & ~Q(instances__node_name="")
    booked = SavingsEntry.objects.filter(cluster=OuterRef("pk")).order_by().values("cluster")
    return (
        Cluster.objects.filter(removed_at=None)
        .select_related("account")
        .annotate(**node_measures("instances__"), unready_total=Count("instances", filter=waiting))
        .annotate(usd_booked=Coalesce(Subquery(booked.annotate(usd=Sum("usd")).values("usd")), ZERO_USD))
        .annotate(is_booked_estimated=Exists(booked.filter(is_estimate=True)))
        .order_by("name", "pk")
    )


def cluster_named(cluster_id: UUID) -> Cluster:
    """Return one cluster; raise Gone when it was removed, NotFound when there is none."""
    cluster = Cluster.objects.filter(pk=cluster_id).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    if cluster.removed_at is not None:
        raise Gone("This cluster was removed.")
    return cluster


def cluster_detail(cluster_id: UUID) -> Any:
    """Return one cluster with its measures and node groups; raise as ``cluster_named`` does."""
    cluster_named(cluster_id)
    alive = Q(instances__state__in=ALIVE)
    rows = clusters().annotate(
        cpu_mean=Avg("instances__cpu_util", filter=alive),
        memory_mean=Avg("instances__memory_util", filter=alive),
    )
    return rows.prefetch_related("node_groups").get(pk=cluster_id)


def nodes_of(cluster_id: UUID) -> QuerySet[Instance]:
    """Return the living nodes of a cluster with their groups, by name."""
    rows = Instance.objects.filter(cluster_id=cluster_id, state__in=ALIVE).select_related("node_group")
    return rows.order_by("node_name", "instance_id")


def node_groups_of(cluster_id: UUID) -> QuerySet[NodeGroup]:
    """Return the node groups of a cluster with how many nodes each has, by name."""
    alive = Count("instances", filter=Q(instances__state__in=ALIVE))
    return NodeGroup.objects.filter(cluster_id=cluster_id).annotate(node_total=alive).order_by("name")


def workloads_of(cluster_id: UUID) -> QuerySet[Workload]:
    """Return what runs in a cluster, by namespace, kind and name."""
    return Workload.objects.filter(cluster_id=cluster_id).order_by("key")


def actions_of(cluster_id: UUID) -> QuerySet[Action]:
    """Return the changes requested for a cluster, newest first."""
    return Action.objects.filter(cluster_id=cluster_id).order_by("-created_at", "pk")


def interruptions() -> QuerySet[Interruption]:
    """Return AWS's notices about the organization's spot nodes, newest first."""
    return Interruption.objects.select_related("instance").order_by("-noticed_at", "pk")
