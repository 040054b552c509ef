"""Everything but snapshots that passes between an agent and the product."""

from base64 import b64decode
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agentapi.protocol.codec import Count, Json, Limit, Name, Short, Text, canonical_json, dump

VERSION = 1
"""Of this protocol; the server answers ``upgrade_required`` to agents of another one."""


@dataclass(frozen=True, slots=True)
class Registration:
    """An agent introduces itself."""

    agent_id: Annotated[str, Limit(8, 64)]
    version: Annotated[str, Limit(1, 40)]
    protocol: Count = VERSION
    k8s_version: Annotated[str, Limit(0, 40)] = ""
    node_count: Count = 0
    capabilities: tuple[Short, ...] = ()


@dataclass(frozen=True, slots=True)
class Registered:
    """What a registered agent needs; ``agent_key`` is set only when a bootstrap key was exchanged for it."""

    cluster_id: Short
    cluster_name: Name
    signing_public_key: Short
    agent_key: Text = ""
    config_version: Count = 0
    config: Json = field(default_factory=dict)
    upgrade_required: bool = False


@dataclass(frozen=True, slots=True)
class Goodbye:
    """An agent stops on purpose."""

    agent_id: Short


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life."""

    agent_id: Short
    version: Annotated[str, Limit(0, 40)] = ""
    sent_at: datetime | None = None
    node_count: Count = 0
    uptime_seconds: Count = 0
    memory_mib: Count = 0
    errors_last_minute: Count = 0
    last_collection_at: datetime | None = None
    k8s_api_ok: bool = True
    config_version: Count = 0
    running_actions: tuple[Short, ...] = ()


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    """The server's answer to a heartbeat."""

    ack: bool = True
    config_version: Count = 0
    config: Json | None = None
    """The slice of policy, when the agent does not hold this version of it yet."""
    pending_actions: Count = 0
    clock_skew_seconds: int = 0
    """How far the agent's clock is ahead of the server's."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A request for work that may hang until there is some."""

    agent_id: Short
    limit: Annotated[int, Limit(1, 10)] = 10
    wait_seconds: Annotated[int, Limit(0, 30)] = 0
    """On the wall, not by the shared clock."""
    known_actions: tuple[Short, ...] = ()
    """What the agent is working on, or has not yet been able to report."""


@dataclass(frozen=True, slots=True)
class Command:
    """One action to carry out; the signature covers every other field."""

    action_id: Short
    cluster_id: Short
    agent_id: Short
    action_type: Short
    payload: Json
    created_at: datetime
    expires_at: datetime
    nonce: Short
    is_voluntary: bool = True
    """False for reactions to an interruption and for clean-up, which exclusions do not hold up."""
    signature: Annotated[str, Limit(0, 128)] = ""

    def signed_document(self) -> dict[str, Any]:
        """Return what is signed."""
        document = dump(self)
        document.pop("signature", None)
        return document

    def is_signed_by(self, public_key: str) -> bool:
        """Tell whether the base64 Ed25519 key made the signature."""
        try:
            key = Ed25519PublicKey.from_public_bytes(b64decode(public_key, validate=True))
            key.verify(b64decode(self.signature, validate=True), canonical_json(self.signed_document()))
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Commands:
    """The answer to a claim."""

    actions: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a command; ``status`` is ``completed`` or ``failed``."""

    agent_id: Short
    status: Short
    result: Json = field(default_factory=dict)
    error_code: Annotated[str, Limit(0, 100)] = ""
    error_message: Text = ""
    duration_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the cluster."""

    event_id: Annotated[str, Limit(1, 80)]
    event_type: Annotated[str, Limit(1, 60)]
    occurred_at: datetime
    severity: Annotated[str, Limit(0, 10)] = "info"
    payload: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Events:
    """At most 100 events."""

    agent_id: Short
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class InterruptionNotice:
    """AWS said of a node that it ends (``interruption``) or is at risk (``rebalance``)."""

    kind: Short
    node_name: Name
    instance_id: Short
    at: datetime
    """When the notice was given, as near as the agent can tell."""
    deadline: datetime | None = None
    """When the instance goes; null for a rebalance recommendation."""


@dataclass(frozen=True, slots=True)
class Interruptions:
    """At most 100 notices."""

    agent_id: Short
    notices: tuple[InterruptionNotice, ...] = ()


@dataclass(frozen=True, slots=True)
class InterruptionsAnswer:
    """What became of each notice, in order.

    ``recorded``, ``known``, ``stale``, ``not_spot``, or ``unknown_node``: the last is worth sending again.
    """

    receptions: tuple[Short, ...] = ()
