"""The agents' own endpoints, and those by which people connect clusters and manage keys."""

from typing import cast
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.status import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT
from rest_framework.views import APIView

from accounts.permissions import actor_of
from agentapi import protocol, selectors
from agentapi.authentication import AgentIdentity, AgentKeyAuthentication, identify
from agentapi.permissions import AgentThrottle, IsAgent, MembersOnly
from agentapi.serializers import (
    SMALL_BODY_BYTES,
    ConnectionSerializer,
    ConnectSerializer,
    InstallationSerializer,
    KeySerializer,
    NewKeySerializer,
    ShownKeySerializer,
    WaitingActionSerializer,
    WireParser,
    read_json,
    wire,
)
from agentapi.services import delivery, installation, keys, presence, reports, waiting
from agentapi.services.waiting import Woken
from spotopt.core.errors import SpotOptError
from spotopt.core.problems import problem_handler
from spotopt.core.tenancy import tenant

NO_STORE = {"Cache-Control": "no-store"}


class AgentView(APIView):
    """An endpoint that only the agent of the cluster in the path may use."""

    authentication_classes = [AgentKeyAuthentication]
    permission_classes = [IsAgent]
    throttle_classes = [AgentThrottle]
    parser_classes = [WireParser]
    max_body_bytes = SMALL_BODY_BYTES

    @property
    def agent(self) -> AgentIdentity:
        """Return the caller."""
        return cast(AgentIdentity, self.request.user)


@extend_schema(request=dict, responses=dict)
class Register(AgentView):
    """An agent introduces itself; a bootstrap key is exchanged here."""

    permission_classes = []
    throttle_scope = "register"

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Answer with what the agent needs, its long-lived key included where one was bought."""
        registration = wire(protocol.Registration, request.data)
        registered = presence.register(key=self.agent.key, registration=registration, actor=self.agent.actor)
        return Response(protocol.dump(registered), headers=NO_STORE)


@extend_schema(request=dict, responses={204: None})
class Deregister(AgentView):
    """An agent stops on purpose."""

    throttle_scope = "register"

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Mark the agent offline."""
        goodbye = wire(protocol.Goodbye, request.data)
        presence.deregister(cluster_id=cluster_id, agent_id=goodbye.agent_id, actor=self.agent.actor)
        return Response(status=HTTP_204_NO_CONTENT)


@extend_schema(request=dict, responses=dict)
class Heartbeat(AgentView):
    """An agent lives."""

    throttle_scope = "heartbeat"

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Answer with what waits for the agent."""
        sign = wire(protocol.Heartbeat, request.data)
        answer = presence.heartbeat(cluster_id=cluster_id, sign=sign, actor=self.agent.actor)
        return Response({"ack": True} | protocol.dump(answer))


@extend_schema(request=dict, responses=dict)
class Snapshot(AgentView):
    """An agent tells what it sees: a full snapshot or a delta, in gzip."""

    throttle_scope = "snapshot"
    max_body_bytes = protocol.MAX_BODY_BYTES

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Answer with the sequence at which the inventory stands."""
        snapshot = wire(protocol.Snapshot, request.data)
        return Response(protocol.dump(reports.store_snapshot(cluster_id=cluster_id, snapshot=snapshot)))


@extend_schema(request=dict, responses=dict)
class Events(AgentView):
    """An agent tells what happened."""

    throttle_scope = "events"

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Answer with how many of the events were new."""
        events = wire(protocol.Events, request.data)
        stored = reports.store_events(
            organization_id=self.agent.organization_id,
            cluster_id=cluster_id,
            events=events,
            actor=self.agent.actor,
        )
        return Response({"stored": stored, "duplicates": len(events.events) - stored})


@extend_schema(request=dict, responses=dict)
class Interruptions(AgentView):
    """An agent tells that AWS takes nodes back."""

    throttle_scope = "events"

    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Close the nodes to new pods and answer with what became of each notice."""
        told = wire(protocol.Interruptions, request.data)
        return Response(protocol.dump(reports.store_notices(cluster_id=cluster_id, told=told)))


class WaitingActions(AgentView):
    """What waits for the agent; looking changes nothing."""

    throttle_scope = "actions"

    @extend_schema(responses=WaitingActionSerializer(many=True))
    def get(self, request: Request, cluster_id: UUID) -> Response:
        """Answer with at most ten actions, oldest first."""
        actions = selectors.waiting_actions(cluster_id)[:10]
        return Response({"actions": WaitingActionSerializer(actions, many=True).data})


@extend_schema(request=dict, responses=dict)
class ActionResult(AgentView):
    """An agent tells what became of an action."""

    throttle_scope = "result"

    def post(self, request: Request, cluster_id: UUID, action_id: UUID) -> Response:
        """Close the action; the same result again answers the same."""
        result = wire(protocol.Result, request.data)
        closed = delivery.store_result(cluster_id=cluster_id, action_id=action_id, result=result)
        return Response({"success": True, "acknowledged_at": closed.completed_at})


@csrf_exempt
async def claim_actions(request: HttpRequest, cluster_id: UUID) -> HttpResponse:
    """Give an agent signed commands, waiting for some as long as it asks; holds nothing while it waits."""
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    try:
        identity = await waiting.in_database(_identify_agent, request, cluster_id)
        encoding = request.headers.get("Content-Encoding", "")
        claim = wire(
            protocol.Claim, read_json(request.read(SMALL_BODY_BYTES + 1), SMALL_BODY_BYTES, encoding)
        )
        with tenant(identity.organization_id):
            commands = await waiting.in_database(delivery.claim, cluster_id=cluster_id, request=claim)
            woken = Woken.BY_TIME
            if not commands:
                room = waiting.waiting_room()
                woken = await room.wait(cluster_id, identity.key.pk, claim.wait_seconds)
            if woken is not Woken.BY_TIME:
                await waiting.in_database(_identify_agent, request, cluster_id)  # not revoked meanwhile
                commands = await waiting.in_database(delivery.claim, cluster_id=cluster_id, request=claim)
    except (SpotOptError, APIException) as error:
        return _problem(error)
    answer = protocol.dump(protocol.Commands(commands))
    return JsonResponse({"actions": []} | answer, headers=NO_STORE)


def _identify_agent(request: HttpRequest, cluster_id: UUID) -> AgentIdentity:
    identity = identify(request, cluster_id)
    IsAgent.require(identity)
    return identity


def _problem(error: Exception) -> JsonResponse:
    problem = problem_handler(error, {})
    assert problem is not None  # noqa: S101  # only errors that it knows come here
    headers = {"WWW-Authenticate": "Bearer"} if problem.status_code == 401 else {}  # noqa: PLR2004
    return JsonResponse(
        problem.data, status=problem.status_code, content_type=problem.content_type, headers=headers
    )


class Connect(APIView):
    """How to install the agent in a discovered cluster."""

    @extend_schema(request=ConnectSerializer, responses={201: InstallationSerializer})
    def post(self, request: Request) -> Response:
        """Issue a one-use token, shown this once, with the commands that use it."""
        wanted = ConnectSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        answer = installation.prepare_installation(
            cluster=selectors.cluster_named(wanted.validated_data["cluster_id"]),
            namespace=wanted.validated_data["namespace"],
            options=wanted.validated_data["options"],
            actor=actor_of(request),
        )
        return Response(InstallationSerializer(answer).data, status=HTTP_201_CREATED, headers=NO_STORE)


class Verify(APIView):
    """Whether the cluster's agent is connected."""

    @extend_schema(responses=ConnectionSerializer)
    def get(self, request: Request, cluster_id: UUID) -> Response:
        """Answer ``connected`` when it was heard of in the last 60 seconds."""
        return Response(ConnectionSerializer(selectors.connection_of(cluster_id)).data)


class Keys(APIView):
    """The keys of a cluster."""

    permission_classes = [MembersOnly]

    @extend_schema(responses=KeySerializer(many=True))
    def get(self, request: Request, cluster_id: UUID) -> Response:
        """List them, newest first, without their secrets."""
        return Response({"keys": KeySerializer(selectors.keys_of(cluster_id), many=True).data})

    @extend_schema(request=NewKeySerializer, responses={201: ShownKeySerializer})
    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Create an agent key, shown this once."""
        wanted = NewKeySerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        cluster = selectors.cluster_named(cluster_id)
        issued = keys.create_key(cluster=cluster, actor=actor_of(request), **wanted.validated_data)
        return _shown_once(issued)


class KeyRotation(APIView):
    """Replace the keys of a cluster."""

    permission_classes = [MembersOnly]

    @extend_schema(request=None, responses={201: ShownKeySerializer})
    def post(self, request: Request, cluster_id: UUID) -> Response:
        """Create an agent key, shown this once; the others work for 24 hours more."""
        return _shown_once(
            keys.rotate_keys(cluster=selectors.cluster_named(cluster_id), actor=actor_of(request))
        )


class KeyRevocation(APIView):
    """Stop one key."""

    permission_classes = [MembersOnly]

    @extend_schema(request=None, responses=KeySerializer)
    def delete(self, request: Request, cluster_id: UUID, key_id: UUID) -> Response:
        """Revoke the key at once; it stays listed."""
        cluster = selectors.cluster_named(cluster_id)
        key = keys.revoke_key(cluster=cluster, key_id=key_id, actor=actor_of(request))
        return Response(KeySerializer(key).data, status=HTTP_200_OK)


def _shown_once(issued: keys.IssuedKey) -> Response:
    shown: dict[str, object] = {**KeySerializer(issued.key).data, "api_token": issued.token}
    return Response(shown, status=HTTP_201_CREATED, headers=NO_STORE)
