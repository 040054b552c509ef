"""Hand actions to agents as signed commands, and take their results."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from agentapi import protocol
from agentapi.models import AgentAction
from agentapi.services import presence
from clusters.models import Action
from clusters.services import actions, handover
from spotopt.core import crypto
from spotopt.core.clock import utcnow
from spotopt.core.errors import Gone, InvalidInput, NotFound

REDELIVER_AFTER = timedelta(seconds=60)
"""A command that the agent does not know of after this long never reached it; urgent ones wait not at all."""


def claim(*, cluster_id: UUID, request: protocol.Claim) -> tuple[protocol.Command, ...]:
    """Give the agent its pending actions as signed commands, oldest first; each is given out once.

    A command whose answer was lost on the way (the agent says what it knows of) is sent again unchanged, so
    that its nonce lets it run once only. Raises Conflict when the agent is not its cluster's.
    """
    presence.require_leader(cluster_id=cluster_id, agent_id=request.agent_id)
    lost = _lost(cluster_id, request)
    claimed = handover.claim_for_agent(
        cluster_id=cluster_id,
        agent_id=request.agent_id,
        deliver=_deliver,
        limit=request.limit,
    )
    return (*lost, *claimed)


def claim_for_many(*, requests: Mapping[UUID, protocol.Claim]) -> dict[UUID, tuple[protocol.Command, ...]]:
    """Give many clusters' agents, which are known to lead them, their actions in one go; return by cluster.

    A cluster is missing where ``claim`` has to look closer, or finds nothing.
    """
    claimed = handover.claim_for_agents(
        claimants={
            cluster_id: handover.Claimant(request.agent_id, request.limit)
            for cluster_id, request in requests.items()
        },
        deliver=_deliver,
    )
    return {cluster_id: tuple(commands) for cluster_id, commands in claimed.items()}


def store_result(*, cluster_id: UUID, action_id: UUID, result: protocol.Result) -> AgentAction:
    """Close an action with what its agent says; the same result again changes nothing.

    Raises NotFound for an action that was not delivered to this cluster, Conflict when another agent holds
    it, and Gone when it is over already; the late result is kept then.
    """
    if result.status not in ("completed", "failed"):
        raise InvalidInput("The status is not known.", errors={"status": ["must be completed or failed"]})
    delivery = AgentAction.objects.filter(cluster_id=cluster_id, action_id=action_id).first()
    if delivery is None:
        raise NotFound("There is no such action.")
    try:
        return _close(delivery, result)
    except Gone:
        _keep(delivery, result, is_late=True)
        raise


@transaction.atomic
def _close(delivery: AgentAction, result: protocol.Result) -> AgentAction:
    succeeded = result.status == "completed"
    actions.report_result(
        action_id=delivery.action_id,
        claimed_by=result.agent_id,
        succeeded=succeeded,
        result=result.result,
        error_code=result.error_code,
        error_message=result.error_message,
    )
    delivery.status = AgentAction.Status.COMPLETED if succeeded else AgentAction.Status.FAILED
    _keep(delivery, result, is_late=False)
    return delivery


def _keep(delivery: AgentAction, result: protocol.Result, *, is_late: bool) -> None:
    delivery.result, delivery.error_message = dict(result.result), result.error_message
    delivery.completed_at, delivery.is_late = utcnow(), is_late
    delivery.save(
        update_fields=["status", "result", "error_message", "completed_at", "is_late", "updated_at"]
    )


def _lost(cluster_id: UUID, request: protocol.Claim) -> list[protocol.Command]:
    picked_up = (
        AgentAction.objects.select_related("action")
        .filter(
            Q(picked_up_at__lte=utcnow() - REDELIVER_AFTER) | Q(action__is_voluntary=False),
            cluster_id=cluster_id,
            status=AgentAction.Status.PICKED_UP,
            picked_up_by=request.agent_id,
            expires_at__gt=utcnow(),
            action__status=Action.Status.RUNNING,
        )
        .order_by("created_at")
    )
    known = set(request.known_actions)
    return [_command(each) for each in picked_up if str(each.action_id) not in known]


def _deliver(granted: Sequence[Action]) -> list[protocol.Command]:
    deliveries = [_delivery(action) for action in granted]
    AgentAction.unscoped.bulk_create(deliveries)
    return [_command(delivery) for delivery in deliveries]


def _delivery(action: Action) -> AgentAction:
    delivery = AgentAction(
        organization_id=action.organization_id,
        cluster_id=action.cluster_id,
        action=action,
        action_type=action.kind,
        payload=dict(action.params),
        nonce=secrets.token_urlsafe(24),
        status=AgentAction.Status.PICKED_UP,
        picked_up_by=action.claimed_by,
        picked_up_at=utcnow(),
        expires_at=action.expires_at,
    )
    delivery.signature = crypto.sign(_command(delivery).signed_document())
    return delivery


def _command(delivery: AgentAction) -> protocol.Command:
    return protocol.Command(
        action_id=str(delivery.action_id),
        cluster_id=str(delivery.cluster_id),
        agent_id=delivery.picked_up_by,
        action_type=delivery.action_type,
        payload=delivery.payload,
        created_at=delivery.created_at,
        expires_at=delivery.expires_at,
        nonce=delivery.nonce,
        is_voluntary=delivery.action.is_voluntary,
        signature=delivery.signature,
    )
