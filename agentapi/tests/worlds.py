"""A simulated cluster that lives fast enough for tests, and the agent's parts bound to it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentapi.agent.clock import Clock
from agentapi.agent.settings import Settings
from simulator.clock import Clock as WorldClock
from simulator.kube.rbac import AGENT, token_of
from simulator.tests.world.standin import Served, build_world, fleet_of, serve

RATE = 60.0


@dataclass(frozen=True, slots=True)
class FastWorld:
    """A served world, and the line that its clock and the agent's follow."""

    served: Served
    clock: Clock

    @property
    def cluster(self):
        return self.served.cluster

    def settings(self, state_dir: Path, **fields) -> Settings:
        defaults = {
            "api_url": "http://127.0.0.1:1",
            "cluster_id": "00000000-0000-0000-0000-000000000001",
            "token": "so_none",
            "state_dir": state_dir,
            "kube_server": f"{self.served.server.url}/clusters/{self.cluster.name}",
            "kube_token": token_of(self.cluster, AGENT),
        }
        return Settings(**(defaults | fields))

    def body(self, path: str):
        with self.served.client() as client:
            return client.get(path).json()

    def node(self, name: str):
        return self.body(f"/api/v1/nodes/{name}")

    def pods_on(self, name: str):
        """The names of the pods on a node that a drain would move."""
        pods = self.body(f"/api/v1/pods?fieldSelector=spec.nodeName={name}")["items"]
        return {
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"].get("ownerReferences", [{"kind": ""}])[0]["kind"] != "DaemonSet"
        }

    def names(self) -> list[str]:
        return [node["metadata"]["name"] for node in self.body("/api/v1/nodes")["items"]]

    def busiest(self) -> str:
        return max(sorted(self.names()), key=lambda name: len(self.pods_on(name)))


@contextmanager
def fast_world(*workloads, nodes: int = 3, rate: float = RATE, **cluster) -> Iterator[FastWorld]:
    """A world whose minute lasts a second, unless another rate leaves more time to act in it."""
    started = time.time()
    clock = WorldClock(wall=started, origin=started, rate=rate)
    world = build_world(
        fleet_of(*workloads, nodes=nodes, **cluster), clock=clock, has_seller="karpenter" in cluster
    )
    for served in serve(world):
        yield FastWorld(served, Clock(wall=started, origin=started, rate=rate))
