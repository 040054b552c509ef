"""What pods and nodes really use: daily curves with noise, the same for the same world and instant."""

import hashlib
import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from simulator.fleet import Usage, Workload
from simulator.kube.cluster import Cluster
from simulator.kube.errors import Body
from simulator.kube.podindex import requests_of
from simulator.kube.quantities import stamp

NAME_LABEL = "app.kubernetes.io/name"
NODE_OVERHEAD_MILLIS, NODE_OVERHEAD_BYTES = 90, 420 * 2**20
NOISE = 0.08
WEEKEND_SHARE = 0.75
SATURDAY = 5
WINDOW = "20.0s"
SAMPLE = timedelta(seconds=15)
DAY_HOURS = 24


class UsageModel:
    """Usage of one cluster's pods, from the fleet's description of its workloads."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._usages = {(each.namespace, each.name): each.usage for each in workloads}

    def pod_usage(self, pod: Body, at: datetime) -> tuple[int, int]:
        """(nanocores, bytes) of a running pod; memory never above its limit."""
        metadata = pod["metadata"]
        name = (metadata.get("labels") or {}).get(NAME_LABEL, "")
        usage = self._usages.get((metadata["namespace"], name)) or Usage()
        cpu_request, memory_request = requests_of(pod)
        minute = int(at.timestamp()) // 60
        noise = 1 + NOISE * (2 * _share(metadata["uid"], str(minute)) - 1)
        phase = _share(name, "phase") * 0.15
        hours = at.hour + at.minute / 60
        wave = math.sin(math.tau * (hours / DAY_HOURS - 0.35 + phase))
        busy = WEEKEND_SHARE if at.weekday() >= SATURDAY else 1.0
        cpu = max(0.01, (usage.cpu_share + usage.cpu_swing * wave) * busy) * noise
        memory = min(1.0, usage.memory_share * (1 + 0.04 * wave + 0.05 * _share(metadata["uid"], "memory")))
        return int(max(cpu_request, 10) * cpu * 1_000_000), int(max(memory_request, 2**24) * memory)

    def pod_metrics(self, pod: Body, at: datetime) -> Body:
        """The PodMetrics object; several containers share by their number."""
        cpu, memory = self.pod_usage(pod, at)
        containers = pod["spec"]["containers"]
        share = {"cpu": f"{cpu // len(containers)}n", "memory": f"{memory // len(containers) // 1024}Ki"}
        metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
        return {
            "metadata": metadata
            | {"labels": pod["metadata"].get("labels") or {}, "creationTimestamp": stamp(at)},
            "timestamp": stamp(at),
            "window": WINDOW,
            "containers": [{"name": container["name"], "usage": share} for container in containers],
        }

    def node_metrics(self, cluster: Cluster, node: Body, at: datetime) -> Body:
        """The NodeMetrics object: its running pods and the system."""
        cpu, memory = NODE_OVERHEAD_MILLIS * 1_000_000, NODE_OVERHEAD_BYTES
        for pod in cluster.index.pods_on(node["metadata"]["name"]):
            if is_measured(pod):
                pod_cpu, pod_memory = self.pod_usage(pod, at)
                cpu, memory = cpu + pod_cpu, memory + pod_memory
        return {
            "metadata": {
                "name": node["metadata"]["name"],
                "labels": node["metadata"].get("labels") or {},
                "creationTimestamp": stamp(at),
            },
            "timestamp": stamp(at),
            "window": WINDOW,
            "usage": {"cpu": f"{cpu}n", "memory": f"{memory // 1024}Ki"},
        }


def is_measured(pod: Body) -> bool:
    """Whether the metrics server has seen the pod run."""
    return bool(pod["status"].get("phase") == "Running")


def _share(*key: str) -> float:
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
