"""Watch one spot node's instance metadata: ``python -m agentapi.agent.sentry``, one pod a node.

What AWS says there is written on the sentry's own pod, and the agent, which watches pods, passes it on. So no
node needs a key of Spotopt, nor any right but to change pods of the agent's own namespace.
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

from agentapi.agent.facts import NOTICE
from agentapi.agent.kube import Kube, KubeError, KubeUnreachable
from agentapi.agent.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
_WARNING = timedelta(minutes=2)
METADATA_URL = "http://169.254.169.254"
_SESSION = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
_TIMEOUT = httpx.Timeout(2)
_OK = 200


@dataclass(frozen=True, slots=True)
class Post:
    """Where a sentry stands: its own pod, and the metadata service of its node."""

    namespace: str
    pod: str
    metadata_url: str = METADATA_URL

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Post":
        """Return the post; raise KeyError that names the variable which is missing."""
        url = environment.get("SPOTOPT_METADATA_URL", METADATA_URL)
        return cls(environment["SPOTOPT_NAMESPACE"], environment["SPOTOPT_REPLICA"], url.rstrip("/"))


class Sentry:
    """Looks every two seconds and writes what is new on its pod."""

    def __init__(self, kube: Kube, http: httpx.AsyncClient, post: Post) -> None:
        self._kube, self._http, self._post = kube, http, post
        self._written = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except (httpx.HTTPError, KubeError, KubeUnreachable, ValueError) as error:
                logger.warning("Cannot look or write: %s %s", type(error).__name__, error)
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Read the metadata once and write a notice that is not written yet."""
        notice = await self._read()
        if notice == self._written:
            return
        path = f"/api/v1/namespaces/{self._post.namespace}/pods/{self._post.pod}"
        await self._kube.patch(path, {"metadata": {"annotations": {NOTICE: notice}}})
        self._written = notice

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
    settings = Settings(api_url="", cluster_id="", token="", state_dir=Path())
    kube = await Kube.connect(settings)
    async with httpx.AsyncClient(timeout=_TIMEOUT) as http:
        work = asyncio.ensure_future(Sentry(kube, http, post).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        with suppress(asyncio.CancelledError):
            await work
    await kube.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_main(Post.from_environment(os.environ)))
