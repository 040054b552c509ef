"""Agents that come, live and fall silent."""

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from agentapi import protocol, selectors
from agentapi.models import AgentAction, AgentInstance, APIKey
from agentapi.services import keys
from audit.services import Subject, record
from clusters.models import Action, AgentConfig, Cluster
from clusters.services import inventory
from spotopt.core import crypto
from spotopt.core.actor import Actor
from spotopt.core.clock import utcnow
from spotopt.core.errors import Conflict
from spotopt.core.live import announce
from spotopt.core.tenancy import tenant

SILENT_AFTER = timedelta(seconds=60)
Status = AgentInstance.Status


@transaction.atomic
def register(*, key: APIKey, registration: protocol.Registration, actor: Actor) -> protocol.Registered:
    """Make the agent its cluster's only one; a bootstrap key is exchanged for a long-lived one."""
    cluster = Cluster.objects.select_for_update(of=("self",), no_key=True).get(pk=key.cluster_id)
    token = ""
    if key.kind == APIKey.Kind.BOOTSTRAP:
        token = keys.exchange(key_id=key.pk, cluster=cluster, actor=actor).token
    others = AgentInstance.objects.filter(cluster=cluster).exclude(agent_id=registration.agent_id)
    superseded = others.exclude(status=Status.SUPERSEDED).update(status=Status.SUPERSEDED)
    now = utcnow()
    agent, _ = AgentInstance.objects.update_or_create(
        cluster=cluster,
        agent_id=registration.agent_id,
        defaults={
            "organization_id": cluster.organization_id,
            "version": registration.version,
            "k8s_version": registration.k8s_version,
            "node_count": registration.node_count,
            "capabilities": list(registration.capabilities),
            "registered_at": now,
            "last_heartbeat_at": now,
            "status": Status.ONLINE,
        },
    )
    cluster.agent_installed, cluster.agent_version = True, registration.version
    cluster.last_heartbeat_at = now
    if cluster.status == Cluster.Status.DISCOVERED:
        cluster.status = Cluster.Status.PENDING
    cluster.save(
        update_fields=["agent_installed", "agent_version", "last_heartbeat_at", "status", "updated_at"]
    )
    suffix = " in place of another" if superseded else ""
    _tell(actor, agent, "registered", f"Agent {registration.version} of {cluster.name} connected{suffix}")
    config = AgentConfig.objects.filter(cluster=cluster).first()
    return protocol.Registered(
        cluster_id=str(cluster.pk),
        cluster_name=cluster.name,
        signing_public_key=crypto.public_key(),
        agent_key=token,
        config_version=config.version if config else 0,
        config=config.config if config else {},
        upgrade_required=registration.protocol != protocol.VERSION,
    )


@transaction.atomic
def deregister(*, cluster_id: UUID, agent_id: str, actor: Actor) -> None:
    """Note that the agent stopped on purpose; an agent that is not online changes nothing."""
    agent = AgentInstance.objects.select_related("cluster").filter(cluster_id=cluster_id, agent_id=agent_id)
    if agent.filter(status=Status.ONLINE).update(status=Status.OFFLINE):
        found = agent.get()
        _tell(actor, found, "stopped", f"The agent of {found.cluster.name} was stopped")


def heartbeat(*, cluster_id: UUID, sign: protocol.Heartbeat, actor: Actor) -> protocol.HeartbeatAnswer:
    """Keep the agent online and tell it what waits for it.

    Raises Conflict, with ``code``, for an agent that never registered or was superseded by another.
    """
    now = utcnow()
    alive = {
        "last_heartbeat_at": now,
        "health": protocol.dump(sign),
        "version": sign.version,
        "node_count": sign.node_count,
    }
    mine = AgentInstance.objects.filter(cluster_id=cluster_id, agent_id=sign.agent_id)
    if not mine.filter(status=Status.ONLINE).update(**alive):
        _come_back(mine.select_related("cluster").first(), alive, actor)
    inventory.record_heartbeat(cluster_id=cluster_id, agent_version=sign.version)
    if sign.config_version:
        AgentConfig.objects.filter(cluster_id=cluster_id, version=sign.config_version).exclude(
            acknowledged_version=sign.config_version
        ).update(acknowledged_version=sign.config_version)
    config = AgentConfig.objects.filter(cluster_id=cluster_id).first()
    skew = round((sign.sent_at - now).total_seconds()) if sign.sent_at else 0
    return protocol.HeartbeatAnswer(
        config_version=config.version if config else 0,
        config=config.config if config and config.version != sign.config_version else None,
        pending_actions=selectors.waiting_actions(cluster_id).count(),
        clock_skew_seconds=skew,
    )


def require_leader(*, cluster_id: UUID, agent_id: str) -> None:
    """Raise Conflict unless the agent is the registered one of its cluster."""
    status = (
        AgentInstance.objects.filter(cluster_id=cluster_id, agent_id=agent_id)
        .values_list("status", flat=True)
        .first()
    )
    if status is None:
        raise Conflict("This agent is not registered.", code="unregistered")
    if status == Status.SUPERSEDED:
        raise Conflict("Another agent has taken over this cluster.", code="superseded")


def mark_silent() -> int:
    """Mark agents of every organization offline that were silent for a minute; return how many."""
    limit = utcnow() - SILENT_AFTER
    silent = AgentInstance.unscoped.select_related("cluster").filter(
        status=Status.ONLINE, last_heartbeat_at__lte=limit
    )
    count = 0
    for agent in silent:
        with tenant(agent.organization_id):
            count += _mark_offline(agent)
    return count


@transaction.atomic
def _mark_offline(agent: AgentInstance) -> int:
    limit = utcnow() - SILENT_AFTER
    marked = AgentInstance.objects.filter(
        pk=agent.pk, status=Status.ONLINE, last_heartbeat_at__lte=limit
    ).update(status=Status.OFFLINE)
    if marked:
        actor = Actor.system(agent.organization_id)
        _tell(actor, agent, "silent", f"The agent of {agent.cluster.name} fell silent", outcome="failed")
    return marked


def close_dead_deliveries() -> int:
    """Fail deliveries whose action was closed by somebody else than the agent; return how many."""
    open_ones = Q(status=AgentAction.Status.PICKED_UP)
    over = ~Q(action__status__in=[Action.Status.PENDING, Action.Status.RUNNING])
    dead = AgentAction.unscoped.filter(open_ones & over).values_list("pk", flat=True)
    return AgentAction.unscoped.filter(pk__in=list(dead), status=AgentAction.Status.PICKED_UP).update(
        status=AgentAction.Status.FAILED,
        error_message="The agent did not report in time.",
        completed_at=utcnow(),
    )


def _come_back(agent: AgentInstance | None, alive: dict[str, object], actor: Actor) -> None:
    if agent is None:
        raise Conflict("This agent is not registered.", code="unregistered")
    if agent.status == Status.SUPERSEDED:
        raise Conflict("Another agent has taken over this cluster.", code="superseded")
    with transaction.atomic():
        back = AgentInstance.objects.filter(pk=agent.pk, status=Status.OFFLINE).update(
            status=Status.ONLINE, **alive
        )
        if back:
            _tell(actor, agent, "returned", f"The agent of {agent.cluster.name} is back")


def _tell(actor: Actor, agent: AgentInstance, verb: str, sentence: str, *, outcome: str = "success") -> None:
    announce(organization_id=agent.organization_id, topic="agent", cluster_id=str(agent.cluster_id))
    record(
        actor=actor,
        event=f"agentapi.agent.{verb}",
        sentence=sentence,
        subject=Subject("agent", agent.agent_id, agent.agent_id),
        outcome=outcome,
        account_id=agent.cluster.account_id,
        cluster_id=agent.cluster_id,
        after={"version": agent.version},
    )
