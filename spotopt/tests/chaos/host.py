"""`python -m spotopt.tests.chaos.host <file>`: several agents in one process, each with a clock of its own.

The file holds a list of environments, as an agent's process would have them.
"""

import asyncio
import json
import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path

from agentapi.agent.clock import Clock
from agentapi.agent.program import Agent
from agentapi.agent.settings import Settings


async def _live(environments: list[dict[str, str]]) -> None:
    agents = [Agent(Settings.from_environment(each), Clock.from_environment(each)) for each in environments]
    work = asyncio.gather(*(agent.run() for agent in agents))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
    with suppress(asyncio.CancelledError):
        await work


def main() -> None:
    """Run until a signal stops it."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_live(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
