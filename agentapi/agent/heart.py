"""Beat: say that the agent lives, and hear what changed for it."""

import logging
import resource
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from agentapi import protocol
from agentapi.agent import VERSION
from agentapi.agent.backend import Backend, Refused, Unreachable
from agentapi.agent.clock import Clock
from agentapi.agent.collector import Collector
from agentapi.agent.enrolment import Enrolment
from agentapi.agent.executor import Executor
from agentapi.agent.kube import KubeError, KubeUnreachable
from agentapi.agent.pauses import spread
from agentapi.agent.rules import Exclusions
from agentapi.agent.view import View

logger = logging.getLogger(__name__)

_UNAUTHORIZED, _CONFLICT = 401, 409
_MINUTE = 60.0
_TOLERATED_SKEW_SECONDS = 60


class Heart:
    """Heartbeats, and what their answers say: the policy's exclusions, and who leads."""

    def __init__(self, backend: Backend, clock: Clock, enrolment: Enrolment, own_namespace: str) -> None:
        self._backend, self._clock, self._enrolment = backend, clock, enrolment
        self._own_namespace, self._started = own_namespace, clock.seconds()
        self._errors: deque[float] = deque(maxlen=1000)
        self.exclusions = Exclusions()
        self.is_superseded = False
        self.clock_ahead_seconds = 0
        """How far this agent's clock is ahead of the product's, by which commands expire."""

    def learn(self, version: int, config: Mapping[str, object]) -> None:
        """Take over the exclusions of a policy slice."""
        self.exclusions = Exclusions.from_config(version, config, own_namespace=self._own_namespace)

    def note(self, error: Exception) -> None:
        """Count an error of the road to the product."""
        logger.warning("The product: %s", error)
        self._errors.append(self._clock.seconds())

    async def run(self, view: View, collector: Collector, executor: Executor, seconds: float) -> None:
        """Beat every so many seconds of the shared clock until cancelled."""
        while True:
            try:
                answer = await self._backend.heartbeat(self._sign(view, collector, executor))
                self.is_superseded = False
                self._compare_clocks(answer.clock_skew_seconds)
                if answer.config is not None:
                    self.learn(answer.config_version, answer.config)
            except Refused as error:
                await self._answer_refusal(error, view)
            except Unreachable as error:
                self.note(error)
            await self._clock.sleep(spread(0.95 * seconds, 0.05))

    def _compare_clocks(self, ahead_seconds: int) -> None:
        self.clock_ahead_seconds = ahead_seconds
        if abs(ahead_seconds) > _TOLERATED_SKEW_SECONDS:
            sense = "ahead of" if ahead_seconds > 0 else "behind"
            logger.warning("This clock is %d s %s the product's: fix it.", abs(ahead_seconds), sense)

    def _sign(self, view: View, collector: Collector, executor: Executor) -> protocol.Heartbeat:
        now = self._clock.seconds()
        while self._errors and now - self._errors[0] >= _MINUTE:
            self._errors.popleft()
        return protocol.Heartbeat(
            agent_id=self._enrolment.identity.agent_id,
            version=VERSION,
            sent_at=self._clock.now(),
            node_count=len(view.nodes.items),
            uptime_seconds=max(0, int(now - self._started)),
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            errors_last_minute=len(self._errors),
            last_collection_at=collector.last_collection_at,
            k8s_api_ok=view.is_live,
            config_version=self.exclusions.version,
            running_actions=executor.running_actions,
        )

    async def _answer_refusal(self, error: Refused, view: View) -> None:
        self.note(error)
        if error.status == _CONFLICT and error.code == "superseded":
            if not self.is_superseded:
                logger.error("Another agent has taken over this cluster; this one stands by.")
            self.is_superseded = True
            return
        with suppress(Refused, Unreachable, KubeError, KubeUnreachable):  # the next beat asks again
            if error.status == _UNAUTHORIZED:
                await self._enrolment.renew()
            elif error.status == _CONFLICT:
                await self._enrolment.introduce(node_count=len(view.nodes.items))
