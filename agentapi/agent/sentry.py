"""Watch one spot node's instance metadata: ``python -m agentapi.agent.sentry``, one pod a node.

What AWS says there is the last word of the process: the kubelet puts it into the pod's status and starts the
sentry anew, and the agent, which watches pods, passes it on. So no node needs a key of Spotopt, nor any right
in the cluster, and none can speak for another.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
_WARNING = timedelta(minutes=2)
METADATA_URL = "http://169.254.169.254"
_SESSION = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
_TIMEOUT = httpx.Timeout(2)
_OK = 200


@dataclass(frozen=True, slots=True)
class Post:
    """Where a sentry stands: the metadata service of its node, and what outlives the process."""

    state_dir: Path
    message: Path = Path("/dev/termination-log")
    """What the kubelet reads at the end."""
    metadata_url: str = METADATA_URL

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Post":
        """Return the post; raise KeyError that names the variable which is missing."""
        url = environment.get("SPOTOPT_METADATA_URL", METADATA_URL)
        return cls(Path(environment["SPOTOPT_SENTRY_STATE"]), metadata_url=url.rstrip("/"))


class Sentry:
    """Looks every two seconds, until there is something new to tell."""

    def __init__(self, http: httpx.AsyncClient, post: Post) -> None:
        self._http, self._post = http, post
        self._told = post.state_dir / "told"

    async def run(self) -> None:
        """Return once there is news, or when cancelled."""
        while True:
            try:
                if await self.look():
                    return
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                logger.warning("Cannot look or write: %s %s", type(error).__name__, error)
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> bool:
        """Read the metadata once; tell whether it holds news, which is written down for the kubelet then."""
        notice = await self._read()
        if not notice or (self._told.exists() and self._told.read_text() == notice):
            return False
        self._post.message.write_text(notice)
        self._told.write_text(notice)
        return True

    async def _read(self) -> str:
        """Return the notice as the pod carries it, an interruption before advice; empty for none."""
        base = f"{self._post.metadata_url}/latest"
        token = (await self._http.put(f"{base}/api/token", headers=_SESSION)).raise_for_status().text
        headers = {"X-aws-ec2-metadata-token": token}
        action = await self._http.get(f"{base}/meta-data/spot/instance-action", headers=headers)
        if action.status_code == _OK:
            ends_at = datetime.fromisoformat(action.json()["time"])
            return json.dumps({"kind": "interruption", "at": (ends_at - _WARNING).isoformat()})
        advice = await self._http.get(f"{base}/meta-data/events/recommendations/rebalance", headers=headers)
        if advice.status_code == _OK:
            return json.dumps({"kind": "rebalance", "at": advice.json()["noticeTime"]})
        return ""


async def _main(post: Post) -> None:
    async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as http:  # no proxy knows this node
        work = asyncio.ensure_future(Sentry(http, post).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_main(Post.from_environment(os.environ)))
