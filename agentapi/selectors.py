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


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key as its owners see it; ``status`` is ``active``, ``revoked``, ``used`` or ``expired``."""

    id: UUID
    prefix: str
    kind: str
    description: str
    status: str
    created_by: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


def shown_keys(cluster_id: UUID) -> list[ShownKey]:
    """Return the cluster's 20 newest keys, those that work first; raise NotFound."""
    rows = [
        ShownKey(
            id=key.pk,
            prefix=key.key_prefix,
            kind=key.get_kind_display(),
            description=key.description,
            status=key_status(key, utcnow()),
            created_by=key.created_by,
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            expires_at=key.expires_at,
        )
        for key in keys_of(cluster_id)[:20]
    ]
    return sorted(rows, key=lambda row: row.status != "active")


def key_status(key: APIKey, now: datetime) -> str:
    """Return ``active``, ``revoked``, ``used`` or ``expired``."""
    if key.revoked_at is not None:
        return "revoked"
    if key.used_at is not None:
        return "used"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"


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
