"""Start the agent: ``python -m agentapi.agent``."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

from agentapi.agent.clock import Clock
from agentapi.agent.program import Agent
from agentapi.agent.settings import Settings, SettingsError


async def _main(settings: Settings, clock: Clock) -> None:
    work = asyncio.ensure_future(Agent(settings, clock).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with suppress(asyncio.CancelledError):
        await work


def main() -> int:
    """Run until a signal stops it; return the process's exit code."""
    try:
        settings = Settings.from_environment(os.environ)
        clock = Clock.from_environment(os.environ)
    except (SettingsError, ValueError, KeyError) as error:
        sys.stderr.write(f"spotopt-agent: {error}\n")
        return 2
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_main(settings, clock))
    return 0


if __name__ == "__main__":
    sys.exit(main())
