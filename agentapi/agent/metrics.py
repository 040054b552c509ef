"""What the agent counts of itself, in the text form of Prometheus."""

import resource
from collections.abc import Iterator, Mapping

from agentapi.agent import VERSION
from agentapi.agent.backend import Backend
from agentapi.agent.clock import Clock
from agentapi.agent.collector import Collector
from agentapi.agent.executor import Executor
from agentapi.agent.heart import Heart
from agentapi.agent.push import Push
from agentapi.agent.view import View

Labels = tuple[tuple[str, str], ...]
_PAGE_KIB = resource.getpagesize() // 1024


def exposition(
    *,
    clock: Clock,
    backend: Backend,
    view: View,
    collector: Collector,
    executor: Executor,
    push: Push,
    heart: Heart,
) -> str:
    """Return all metrics; times are seconds since the epoch by the agent's clock."""
    collected = collector.last_collection_at
    outcomes: Mapping[Labels, float] = {
        (("type", kind), ("outcome", outcome)): count
        for (kind, outcome), count in executor.finished_count.items()
    }
    gauges: tuple[tuple[str, str, float], ...] = (
        ("kubernetes_live", "1 while the copy of the cluster is fresh.", view.is_live),
        ("safe_mode", "1 while the product is silent for too long.", executor.is_safe_mode),
        ("push_connected", "1 while the product can push.", push.is_connected),
        ("nodes", "Nodes in the copy.", len(view.nodes.items)),
        ("pods", "Pods in the copy.", len(view.pods.items)),
        ("commands_running", "Commands under way.", len(executor.running_actions)),
        (
            "last_snapshot_timestamp_seconds",
            "When the product last took a snapshot.",
            collected.timestamp() if collected else 0,
        ),
        (
            "backend_contact_age_seconds",
            "Since the product last answered.",
            clock.seconds() - backend.last_contact,
        ),
        ("clock_ahead_seconds", "Of the product's clock; below zero behind it.", heart.clock_ahead_seconds),
        ("resident_memory_bytes", "Resident memory.", resident_kib() * 1024),
    )
    lines = [
        *_metric("info", "gauge", "The agent's version.", {(("version", VERSION),): 1}),
        *(line for name, text, value in gauges for line in _metric(name, "gauge", text, {(): value})),
        *_metric("commands_total", "counter", "Commands by type and outcome.", outcomes),
        *_metric("snapshots_total", "counter", "Snapshots taken.", {(): collector.sent_count}),
        *_metric("snapshot_bytes_total", "counter", "Bytes of snapshots.", {(): collector.sent_bytes}),
    ]
    return "\n".join(lines) + "\n"


def resident_kib() -> int:
    """Return this process's resident memory in KiB, or its peak where the system tells no more."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # read at every scrape
            return int(file.read().split()[1]) * _PAGE_KIB
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _metric(name: str, kind: str, text: str, values: Mapping[Labels, float]) -> Iterator[str]:
    full = f"spotopt_agent_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values.items():
        named = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
        yield f"{full}{{{named}}} {value:.17g}" if named else f"{full} {value:.17g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
