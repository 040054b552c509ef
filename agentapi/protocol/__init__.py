"""The wire between the product and its agents, imported by both ends; plain Python.

Documents are JSON objects in gzip. ``parse`` turns one into the frozen dataclass it was asked for, or raises
ProtocolError that names the field; ``dump`` is its inverse and leaves out fields that hold their default.
Unknown fields are ignored, so that either end may be the newer one.

A snapshot is aggregated by the agent: nodes, one workload per controller, and how many pods of each workload
run on each node. Snapshots are numbered. A full one (``base`` is None) replaces everything; a delta holds
what changed, and the keys that went, since the acknowledged snapshot ``base``. The server answers ``resync``
when it does not stand at ``base``, and names in ``unknown_nodes`` those nodes of which it could not store
everything yet; the agent tells it about them again with every delta until they are known.
"""

from agentapi.protocol.codec import (
    MAX_BODY_BYTES,
    MAX_DOCUMENT_BYTES,
    Limit,
    ProtocolError,
    canonical_json,
    dump,
    encode,
    inflate,
    instant,
    parse,
)
from agentapi.protocol.messages import (
    VERSION,
    Claim,
    Command,
    Commands,
    Event,
    Events,
    Goodbye,
    Heartbeat,
    HeartbeatAnswer,
    InterruptionNotice,
    Interruptions,
    InterruptionsAnswer,
    Registered,
    Registration,
    Result,
)
from agentapi.protocol.snapshots import (
    Constraints,
    KarpenterReport,
    NodePoolReport,
    NodeReport,
    PodTerm,
    Requirement,
    Snapshot,
    SnapshotAnswer,
    Spread,
    State,
    Taint,
    Toleration,
    WorkloadReport,
)

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DOCUMENT_BYTES",
    "VERSION",
    "Claim",
    "Command",
    "Commands",
    "Constraints",
    "Event",
    "Events",
    "Goodbye",
    "Heartbeat",
    "HeartbeatAnswer",
    "InterruptionNotice",
    "Interruptions",
    "InterruptionsAnswer",
    "KarpenterReport",
    "Limit",
    "NodePoolReport",
    "NodeReport",
    "PodTerm",
    "ProtocolError",
    "Registered",
    "Registration",
    "Requirement",
    "Result",
    "Snapshot",
    "SnapshotAnswer",
    "Spread",
    "State",
    "Taint",
    "Toleration",
    "WorkloadReport",
    "canonical_json",
    "dump",
    "encode",
    "inflate",
    "instant",
    "parse",
]
