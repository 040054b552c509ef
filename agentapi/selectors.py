"""Read keys, agents and what waits for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from agentapi.models import AgentInstance, APIKey
from clusters.models import Action, Cluster
from spotopt.core.clock import utcnow
from spotopt.core.errors import NotFound

CONNECTED_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Connection:
    """Whether a cluster's agent is connected: a heartbeat in the last 60 seconds."""

    cluster_id: UUID
    status: str
    last_seen: datetime | None
    agent_version: str
    health: Mapping[str, object] = field(default_factory=dict)


def cluster_named(cluster_id: UUID) -> Cluster:
    """Return the organization's cluster; raise NotFound."""
    cluster = Cluster.objects.select_related("account").filter(pk=cluster_id, removed_at=None).first()
    if cluster is None:
        raise NotFound("There is no such cluster.")
    return cluster


def keys_of(cluster_id: UUID) -> QuerySet[APIKey]:
    """Return the cluster's keys, newest first."""
    return APIKey.objects.filter(cluster=cluster_named(cluster_id)).order_by("-created_at")


def connection_of(cluster_id: UUID) -> Connection:
    """Return the state of the cluster's agent; raise NotFound."""
    cluster = cluster_named(cluster_id)
    agent = AgentInstance.objects.filter(cluster=cluster).order_by("-registered_at").first()
    seen = cluster.last_heartbeat_at
    alive = (
        agent is not None
        and agent.status == AgentInstance.Status.ONLINE
        and seen is not None
        and utcnow() - seen < CONNECTED_WITHIN
    )
    return Connection(
        cluster_id=cluster.pk,
        status="connected" if alive else "disconnected",
        last_seen=seen,
        agent_version=agent.version if agent else "",
        health=agent.health if agent else {},
    )


def waiting_actions(cluster_id: UUID) -> QuerySet[Action]:
    """Return the actions that wait for the cluster's agent, oldest first."""
    return Action.objects.filter(
        cluster_id=cluster_id,
        route=Action.Route.AGENT,
        status=Action.Status.PENDING,
        expires_at__gt=utcnow(),
    ).order_by("created_at")
