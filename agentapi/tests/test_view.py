import json

import pytest

from agentapi.agent.clock import Clock
from agentapi.agent.kube import KubeError
from agentapi.agent.view import Use, View

pytestmark = pytest.mark.asyncio


class Metrics:
    """A metrics API that answers as it is told to."""

    def __init__(self, nodes, pods):
        self.answers = {"nodes": {"items": nodes}, "pods": {"items": pods}}

    async def get_lean(self, path, shrink):
        return json.loads(json.dumps(self.answers[path.rpartition("/")[2]]), object_hook=shrink)

    async def list(self, path, **_):
        raise KubeError(404, "There is no Karpenter.")


def pod(name, *usages, **labels):
    containers = [{"name": "c", "usage": usage} for usage in usages]
    return {"metadata": {"namespace": "default", "name": name, "labels": labels}, "containers": containers}


async def test_given_odd_answers_of_the_metrics_api_when_measured_then_what_makes_sense_is_kept():
    used = {"cpu": "100m", "memory": "64Mi"}
    pods = [pod("a", used, used), pod("b", used, cpu="high", memory="low"), pod("c", {"cpu": "1"})]
    nodes = [{"metadata": {"name": "n"}, "usage": used}, {"metadata": {"name": "m"}, "usage": {}}]
    view = View(Metrics(nodes, pods), Clock())

    await view.measure()

    assert view.node_usage == {"n": Use(100, 64)}
    assert view.pod_usage["default", "a"] == Use(200, 128)
    assert view.pod_usage["default", "b"] == Use(100, 64)


async def test_given_a_metrics_api_that_lists_nothing_when_measured_then_usage_is_unknown():
    view = View(Metrics(None, None), Clock())

    await view.measure()

    assert (view.node_usage, view.pod_usage) == ({}, {})
