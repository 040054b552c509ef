"""Where the time between a notice and a closed node goes, and which processes were busy meanwhile."""

import json
import os
from collections.abc import Iterable, Mapping

import psutil

from spotopt.tests.interruptions.witness import seconds_of
from spotopt.tests.smoke.client import ApiClient
from spotopt.tests.smoke.instance import Instance
from spotopt.tests.smoke.truth import Finding


class Busy:
    """CPU seconds of the instance's processes, its database and the agents since it was made."""

    def __init__(self, instance: Instance) -> None:
        pids = json.loads((instance.state / "pids.json").read_text())
        self._named = {name: [psutil.Process(pid)] for name, pid in pids.items()}
        ours = psutil.Process(os.getpid()).children(recursive=True)
        self._named["agent"] = [each for each in ours if "agentapi.agent" in each.cmdline()]
        self._named["database"] = [each for each in psutil.process_iter() if _is_database(each, instance)]
        self._before = {name: _cpu(each) for name, each in self._named.items()}

    def since(self) -> str:
        """Return ``name seconds`` of each process that used any, the busiest first, and the load."""
        used = {name: _cpu(each) - self._before[name] for name, each in self._named.items()}
        said = [f"{name} {seconds:.1f}" for name, seconds in sorted(used.items(), key=lambda row: -row[1])]
        return f"{', '.join(said)}; load {os.getloadavg()[0]:.1f}"


def _is_database(process: psutil.Process, instance: Instance) -> bool:
    try:
        if process.name() != "postgres":
            return False
        main = process if "-D" in process.cmdline() else process.parent()
        return main is not None and str(instance.state) in " ".join(main.cmdline())
    except psutil.Error:
        return False


def _cpu(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def hops(
    api: ApiClient, cluster_id: str, noticed: Mapping[str, float], closed: Mapping[str, float]
) -> list[Finding]:
    """Return the stages of the way, each from the notice on, in the middle and at the end of the crowd."""
    asked = api.get(f"/clusters/{cluster_id}/actions?kind=cordon_node&page_size=100")["actions"]
    rows = {each["target"]: each for each in asked if each["target"] in noticed}
    stages = {
        "asked for": {name: seconds_of(row["created_at"]) for name, row in rows.items()},
        "handed to the agent": {
            name: seconds_of(row["claimed_at"]) for name, row in rows.items() if row["claimed_at"]
        },
        "closed": closed,
        "reported": {
            name: seconds_of(row["finished_at"]) for name, row in rows.items() if row["finished_at"]
        },
    }
    return [
        Finding(
            f"  notice to {stage}",
            _spread([at[name] - noticed[name] for name in noticed if name in at]),
            True,
        )
        for stage, at in stages.items()
    ]


def _spread(waits: Iterable[float]) -> str:
    ordered = sorted(waits)
    if not ordered:
        return "never"
    picked = [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0, 0.5, 0.99)]
    return "first {:.2f} s, p50 {:.2f} s, p99 {:.2f} s".format(*picked)
