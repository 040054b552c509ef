"""Start the agent: ``python -m agentapi.agent``."""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress

from agentapi.agent.clock import Clock
from agentapi.agent.program import Agent, LeaseLost
from agentapi.agent.settings import Settings, SettingsError


async def _main(settings: Settings, clock: Clock) -> None:
    work = asyncio.ensure_future(Agent(settings, clock).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with suppress(asyncio.CancelledError):
        await work


def main() -> int:
    """Run until a signal stops it or another replica leads; return the process's exit code."""
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
    code = 0
    try:
        asyncio.run(_main(settings, clock))
    except* LeaseLost:
        sys.stderr.write("spotopt-agent: another replica leads now; starting anew\n")
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
