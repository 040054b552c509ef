"""The agent's own check of a command, before anything is touched."""

from agentapi import protocol
from agentapi.agent.clock import Clock
from agentapi.agent.memory import Journal

KINDS = (
    "soft_cordon_node", "cordon_node", "uncordon_node", "drain_node", "evict_pod", "label_node",
    "update_deployment", "apply_karpenter",
)  # fmt: skip
"""All that this agent can do; no command carries code, a shell or a path."""


class Guard:
    """Refuses commands that the product did not sign for this very agent, now, for the first time."""

    def __init__(
        self, *, cluster_id: str, agent_id: str, public_key: str, journal: Journal, clock: Clock
    ) -> None:
        self._cluster_id, self._agent_id, self._public_key = cluster_id, agent_id, public_key
        self._journal, self._clock = journal, clock

    def refusal(self, command: protocol.Command) -> tuple[str, str] | None:
        """Return a code and a sentence when the command must not be carried out, else None."""
        journal = self._journal
        seen = command.nonce in journal.nonces or command.action_id in journal.known_actions
        signed = command.is_signed_by(self._public_key)
        checks = (
            (signed, "bad_signature", "The command's signature is not the product's."),
            (command.cluster_id == self._cluster_id, "wrong_cluster", "The command is for another cluster."),
            (command.agent_id == self._agent_id, "wrong_agent", "The command is for another agent."),
            (not seen, "replayed", "The command was seen before."),
            (command.expires_at > self._clock.now(), "expired", "The command has expired."),
            (command.action_type in KINDS, "unknown_action", f"This agent cannot {command.action_type}."),
        )
        return next(((code, sentence) for holds, code, sentence in checks if not holds), None)
