"""Elect one leader among the replicas of an agent, by a Lease of Kubernetes.

As client-go does it: a lease that did not change for its duration, by this process's own clock, is free; its
holder stops writing when it could not renew for less than that. Clocks of machines are never compared.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime

from agentapi.agent.kube import Body, Kube, KubeError, KubeUnreachable
from agentapi.agent.pauses import spread

logger = logging.getLogger(__name__)

NAME = "spotopt-agent"
DURATION_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15.0, 10.0, 2.0
"""On the wall: how long a silent holder keeps the lease, may still write, and waits between renewals."""
_NOT_FOUND, _CONFLICT = 404, 409


class Lease:
    """This replica's part in the election."""

    def __init__(self, kube: Kube, namespace: str, holder: str) -> None:
        self._kube, self._namespace, self._holder = kube, namespace, holder
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._renewed_at: float | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        """The version of somebody else's lease, and when it was first seen."""
        self.term = 0
        """How often the lease has changed hands; set when this replica leads."""

    @property
    def is_held(self) -> bool:
        """Tell whether this replica leads, so that nobody else can."""
        return self._left > 0

    @property
    def _left(self) -> float:
        """Return for how many more seconds this replica may lead without another renewal."""
        if self._renewed_at is None:
            return 0.0
        return max(0.0, RENEW_SECONDS - (time.monotonic() - self._renewed_at))

    async def acquire(self) -> None:
        """Return once this replica leads."""
        said = False
        while not await self._try():
            if not said:
                logger.info("Another replica leads; this one stands by.")
                said = True
            await asyncio.sleep(spread(RETRY_SECONDS, 0.2))

    async def keep(self) -> None:
        """Renew until cancelled; return when the lease was lost."""
        while self.is_held:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout(self._left):
                    is_renewed = await self._try()
            except TimeoutError:
                is_renewed = False
            if not is_renewed:
                logger.warning("The lease was not renewed.")
        logger.error("The lease is lost; another replica may lead now.")

    async def give_up(self) -> None:
        """Let another replica lead at once."""
        if not self.is_held:
            return
        self._renewed_at = None
        try:
            lease = await self._kube.get(f"{self._path}/{NAME}")
            if lease["spec"].get("holderIdentity") == self._holder:
                await self._kube.replace(f"{self._path}/{NAME}", self._claimed(lease, holder=""))
        except (KubeError, KubeUnreachable) as error:
            logger.warning("The lease was not given up: %s", error)

    async def _try(self) -> bool:
        started = time.monotonic()
        try:
            taken = await self._take()
        except (KubeError, KubeUnreachable) as error:
            logger.warning("Cannot reach the lease: %s", error)
            return False
        if taken:
            self._renewed_at = started
        return taken

    async def _take(self) -> bool:
        """Write this holder into the lease if it is free or ours; raise when the API server refuses."""
        try:
            lease = await self._kube.get(f"{self._path}/{NAME}")
        except KubeError as error:
            if error.status != _NOT_FOUND:
                raise
            return await self._write(None)
        spec = lease.get("spec") or {}
        if spec.get("holderIdentity") not in ("", None, self._holder) and not self._is_stale(lease):
            self._renewed_at = None
            return False
        return await self._write(lease)

    def _is_stale(self, lease: Body) -> bool:
        version, now = str(lease["metadata"]["resourceVersion"]), time.monotonic()
        if self._seen[0] != version:
            self._seen = version, now
        seconds = float((lease.get("spec") or {}).get("leaseDurationSeconds") or DURATION_SECONDS)
        return now - self._seen[1] >= seconds

    async def _write(self, lease: Body | None) -> bool:
        """Tell whether the write came before anybody else's."""
        try:
            if lease is None:
                ours = await self._kube.create(self._path, self._claimed({}, holder=self._holder))
            else:
                claimed = self._claimed(lease, holder=self._holder)
                ours = await self._kube.replace(f"{self._path}/{NAME}", claimed)
        except KubeError as error:
            if error.status == _CONFLICT:
                return False
            raise
        self.term = int(ours["spec"].get("leaseTransitions") or 0)
        return True

    def _claimed(self, lease: Body, *, holder: str) -> Body:
        now = (
            datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        )
        before = lease.get("spec") or {}
        is_ours = before.get("holderIdentity") == holder
        metadata = lease.get("metadata") or {"name": NAME, "namespace": self._namespace}
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": int(DURATION_SECONDS),
                "acquireTime": before.get("acquireTime") if is_ours else now,
                "renewTime": now,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + (not is_ours),
            },
        }
