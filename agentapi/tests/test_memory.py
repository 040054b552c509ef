import base64
import json

import pytest

from agentapi.agent.memory import FileIdentity, Identity, SecretIdentity

pytestmark = pytest.mark.asyncio
KEPT = {"agent_id": "agent-0000-0001", "key": "so_key", "signing_public_key": "k", "note": "of somebody else"}


class Secrets:
    async def get(self, path):
        return {"data": {name: base64.b64encode(value.encode()).decode() for name, value in KEPT.items()}}


async def test_given_an_identity_with_something_else_beside_it_when_loaded_then_it_is_the_identity(tmp_path):
    """A later version of the agent may have written it, or a person."""
    path = tmp_path / "identity.json"
    path.write_text(json.dumps(KEPT))

    for store in (FileIdentity(path), SecretIdentity(Secrets(), "spot-optimizer", "identity")):
        assert await store.load() == Identity("agent-0000-0001", "so_key", "k")
