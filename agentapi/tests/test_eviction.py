import pytest

from agentapi.agent.eviction import Evictor
from agentapi.agent.kube import KubeError

pytestmark = pytest.mark.asyncio


class BusyBudget:
    """An API server whose budget changes too often for the eviction to be counted, at first."""

    def __init__(self, pod, conflicts):
        self.pod, self.conflicts = pod, conflicts

    async def list(self, path):
        return [], "1"

    async def get(self, path):
        return self.pod

    async def create(self, path, body):
        if self.conflicts:
            self.conflicts -= 1
            raise KubeError(409, "Operation cannot be fulfilled on poddisruptionbudgets")
        return {}


async def test_given_a_conflict_that_is_not_about_the_pod_when_evicted_then_it_is_asked_for_again():
    pod = {"metadata": {"name": "p", "namespace": "default", "uid": "1"}, "status": {"phase": "Running"}}
    evictor = Evictor(BusyBudget(pod, conflicts=1))

    assert await evictor.evict(pod) is False
    assert "poddisruptionbudgets" in evictor.blocked["default/p"]
    assert await evictor.evict(pod) is True
    assert evictor.evicted == {"1"}


async def test_given_another_pod_by_the_name_when_evicted_then_it_is_left_alone():
    pod = {"metadata": {"name": "p", "namespace": "default", "uid": "1"}, "status": {"phase": "Running"}}
    later = {"metadata": {**pod["metadata"], "uid": "2"}}

    assert await Evictor(BusyBudget(later, conflicts=9)).evict(pod) is True
