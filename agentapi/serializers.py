"""Shapes of the agent API: wire documents from agents, JSON for people."""

import json
import re
from typing import Any, TypeVar

from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from agentapi import protocol
from agentapi.models import APIKey
from agentapi.selectors import key_status
from clusters.models import Action
from spotopt.core.clock import utcnow
from spotopt.core.errors import InvalidInput, SpotOptError

SMALL_BODY_BYTES = 256 * 1024
_Document = TypeVar("_Document")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class TooLarge(SpotOptError):
    """The body is larger than the endpoint reads."""

    status, slug, title = 413, "too-large", "Too large"


class WireParser(BaseParser):
    """JSON, in gzip or plain, up to the view's ``max_body_bytes``."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the JSON value; raise TooLarge or ParseError."""
        view, request = parser_context["view"], parser_context["request"]
        limit = getattr(view, "max_body_bytes", SMALL_BODY_BYTES)
        return read_json(stream.read(limit + 1), limit, request.headers.get("Content-Encoding", ""))


def read_json(body: bytes, limit: int, encoding: str) -> object:
    """Return the JSON value of a body; raise TooLarge or ParseError."""
    if len(body) > limit:
        raise TooLarge(f"The body may have at most {limit} bytes.", limit=limit)
    try:
        return json.loads(protocol.inflate(body) if encoding.lower() == "gzip" else body)
    except protocol.ProtocolError as error:
        raise ParseError(f"The body {error.problem}.") from error
    except (ValueError, RecursionError) as error:
        raise ParseError("The body is not valid JSON.") from error


def wire(kind: type[_Document], document: object) -> _Document:
    """Return an agent's document; raise InvalidInput that names the field of another form."""
    try:
        return protocol.parse(kind, document)
    except protocol.ProtocolError as error:
        raise InvalidInput("The document is not valid.", errors={error.field: [error.problem]}) from error


class KeySerializer(serializers.ModelSerializer[APIKey]):
    """A key as its owners see it: never the secret."""

    status = serializers.SerializerMethodField()

    class Meta:
        model = APIKey
        fields = [
            "id",
            "kind",
            "key_prefix",
            "description",
            "status",
            "created_by",
            "created_at",
            "last_used_at",
            "expires_at",
            "used_at",
            "revoked_at",
            "revoked_reason",
        ]

    def get_status(self, key: APIKey) -> str:
        """Return ``active``, ``revoked``, ``used`` or ``expired``."""
        return key_status(key, utcnow())


class NewKeySerializer(serializers.Serializer[Any]):
    """What a new agent key is for."""

    description = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    expires_at = serializers.DateTimeField(required=False, default=None, allow_null=True)

    def validate_expires_at(self, value: Any) -> Any:
        """Refuse an end that has passed."""
        if value is not None and value <= utcnow():
            raise serializers.ValidationError("The end must be in the future.")
        return value


class ShownKeySerializer(KeySerializer):
    """A new key with its secret, shown once."""

    api_token = serializers.CharField(read_only=True)

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "api_token"]


class ConnectSerializer(serializers.Serializer[Any]):
    """Which cluster to connect, and where its agent shall live."""

    cluster_id = serializers.UUIDField()
    namespace = serializers.CharField(max_length=63, required=False, default="spot-optimizer")
    format = serializers.ChoiceField(choices=["helm", "manifest"], required=False, default="helm")
    options = serializers.MultipleChoiceField(
        choices=["karpenter", "sentries", "workloads"], required=False, default=set
    )

    def validate_namespace(self, value: str) -> str:
        """Refuse what Kubernetes would refuse, and what a shell would misread."""
        if not _NAMESPACE.fullmatch(value):
            raise serializers.ValidationError("Use lower-case letters, digits and dashes.")
        return value


class InstallationSerializer(serializers.Serializer[Any]):
    """How to install the agent; the token is shown once."""

    cluster_id = serializers.UUIDField()
    namespace = serializers.CharField()
    endpoint = serializers.CharField()
    api_token = serializers.CharField()
    expires_at = serializers.DateTimeField()
    helm_command = serializers.CharField()
    values_yaml = serializers.CharField()
    manifest = serializers.CharField()


class ConnectionSerializer(serializers.Serializer[Any]):
    """Whether a cluster's agent is connected."""

    cluster_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["connected", "disconnected"])
    last_seen = serializers.DateTimeField(allow_null=True)
    agent_version = serializers.CharField()
    health = serializers.JSONField()


class WaitingActionSerializer(serializers.ModelSerializer[Action]):
    """An action that waits for its agent."""

    action_id = serializers.UUIDField(source="pk")
    action_type = serializers.CharField(source="kind")
    payload = serializers.JSONField(source="params")

    class Meta:
        model = Action
        fields = ["action_id", "action_type", "payload", "created_at", "expires_at"]
