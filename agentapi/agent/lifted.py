"""Notice that somebody opened a node which we had closed."""

import asyncio
import logging

from agentapi.agent.facts import NodeFact
from agentapi.agent.kube import KubeError, KubeUnreachable, is_passing
from agentapi.agent.nodes import Failed, Nodes, Target
from agentapi.agent.pauses import spread

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0
"""On the wall, before another try."""


class Lifted:
    """Forgets cordons of ours that others lifted, so that their own next cordon is not taken for ours."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._found: asyncio.Queue[tuple[Target, str]] = asyncio.Queue()

    def look(self, before: NodeFact | None, after: NodeFact | None) -> None:
        """Look at a node that changed."""
        if after is not None and after.cordoned_by and not after.unschedulable:
            self._found.put_nowait((Target(after.name, after.instance_id), after.cordoned_by))

    async def run(self) -> None:
        """Forget until cancelled."""
        while True:
            target, action_id = await self._found.get()
            try:
                await self._nodes.disown(target, action_id)
            except (Failed, KubeError, KubeUnreachable) as error:
                logger.warning("The lifted cordon of %s is not forgotten: %s", target.name, error)
                if is_passing(error):
                    self._found.put_nowait((target, action_id))
                    await asyncio.sleep(spread(_PAUSE_SECONDS))
