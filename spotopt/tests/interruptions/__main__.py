"""`python -m spotopt.tests.interruptions`: AWS takes 50 of 300 nodes at once, then signals rebalances.

A fresh instance in real time, the real agent, the simulator's records as the truth. The pools of the taken
nodes run dry with them. The aims: a node closes within 2 s of its notice in the middle and 5 s at the 99th
percentile, 99 % of the pods leave before the deadline, and a storm of rebalance signals replaces no more
than the disruption cap of nodes an hour.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from spotopt.tests.interruptions.trace import Busy, hops
from spotopt.tests.interruptions.witness import Witness, seconds_of
from spotopt.tests.smoke.client import ROOT, wait_until
from spotopt.tests.smoke.instance import Instance, start
from spotopt.tests.smoke.road import Road
from spotopt.tests.smoke.truth import Finding

NOTICE_SECONDS = 120
TRACED_SECONDS = 10.0
HOURLY_CAP = 30
"""The disruption cap of 300 nodes: no more may be replaced in an hour by rebalance signals."""


class Storm:
    """One run on one instance."""

    def __init__(self, instance: Instance) -> None:
        self.road = Road(instance)
        self.cluster: dict[str, Any] = {}
        self.witness: Witness | None = None
        self.found: list[Finding] = []

    def prepare(self) -> None:
        """Link the account, connect the agent, and wait until every node has been reported."""
        road = self.road
        road.api.sign_up("storm@spotopt.example", "Interruption storm")
        road.link()
        (self.cluster,) = road.api.get("/clusters")["clusters"]
        road.connect(self.cluster)
        path = f"/clusters/{self.cluster['id']}"
        wait_until("the agent", lambda: road.api.get(path)["snapshot_at"], seconds=120)
        kubernetes = road.world.read(f"clusters/{self.cluster['name']}/credentials", **{"as": "admin"})
        self.witness = Witness(kubernetes["server"], kubernetes["token"])
        self.witness.start()
        road.say(f"{len(self._nodes())} nodes, {road.world.pods()} pods running and waiting")
        time.sleep(10)

    def interrupt(self, count: int) -> None:
        """Take ``count`` nodes of as few pools as hold them, and measure."""
        assert self.witness is not None
        taken = sorted(self._nodes(), key=lambda each: (each["zone_id"], each["instance_type"]))[:count]
        names = {each["private_dns"] for each in taken}
        dry = {f"{each['zone_id']}:{each['instance_type']}:spot" for each in taken}
        self.road.world.order("faults", {"aws": {"no_capacity": sorted(dry)}})
        before = self.witness.pods_on(names)
        busy = Busy(self.road.instance)
        warned = self.road.world.order("interrupt", {"instance_ids": [each["instance_id"] for each in taken]})
        noticed = {each["private_dns"]: seconds_of(each["interrupted_at"]) for each in warned["machines"]}
        time.sleep(TRACED_SECONDS)
        self.road.say(f"CPU seconds in the first {TRACED_SECONDS:.0f} s: {busy.since()}")
        left = self._left_behind(before, noticed)
        self._report_closing(noticed)
        self.found += hops(self.road.api, self.cluster["id"], noticed, self.witness.closed_at)
        moved = 1 - len(left) / max(1, len(before))
        self.found.append(Finding("pods on those nodes", str(len(before)), is_good=True))
        self.found.append(Finding("left before the deadline", f"{moved:.2%}", moved >= 0.99))
        self._report_replacements(count, min(noticed.values()))

    def rebalance(self, count: int, seconds: float) -> None:
        """Signal rebalances for ``count`` nodes under a policy that answers them; count what is replaced."""
        path = f"/policies/{self.cluster['id']}"
        self.road.api.patch(path, {"config": {"provisioning": {"on_rebalance": "replace"}}})
        launched = len(self._launched())
        for each in self._nodes()[:count]:
            self.road.world.order("rebalance", {"instance_id": each["instance_id"]})
        time.sleep(seconds)
        more = len(self._launched()) - launched
        self.found.append(
            Finding(
                "replaced by rebalance signals",
                f"{more} of {count} in {seconds:.0f} s, {more / count:.3f} each (cap {HOURLY_CAP}/h)",
                0 < more <= HOURLY_CAP,
            )
        )

    def check(self) -> None:
        """Look at what must never happen."""
        violations = [
            each
            for cluster in self.road.world.read("availability")["clusters"].values()
            for each in cluster["pdb_violations"]
        ]
        launches = self.road.world.read("launches")
        self.found.append(Finding("PDB violations", str(len(violations)), not violations))
        twice = launches["duplicates"]
        self.found.append(Finding("nodes launched twice", str(len(twice)), not twice))

    def _left_behind(self, before: dict[str, str], noticed: dict[str, float]) -> set[str]:
        """Return the pods that were still on their node one second before its deadline."""
        assert self.witness is not None
        last = max(noticed.values()) + NOTICE_SECONDS
        while (wait := min(noticed.values()) + NOTICE_SECONDS - 1 - time.time()) > 0:
            time.sleep(min(wait, 10))
            there = self.witness.pods_on(noticed)
            self.road.say(f"{last - time.time():5.0f} s left: {len(there.keys() & before.keys())} pods to go")
        return self.witness.pods_on(noticed).keys() & before.keys()

    def _report_closing(self, noticed: dict[str, float]) -> None:
        assert self.witness is not None
        closed = self.witness.closed_at
        waits = sorted(closed[name] - at for name, at in noticed.items() if name in closed)
        if not waits:
            self.found.append(Finding("notice to closed", "no node was closed", is_good=False))
            return
        middle, late = waits[len(waits) // 2], waits[min(len(waits) - 1, int(len(waits) * 0.99))]
        self.found.append(
            Finding("nodes closed", f"{len(waits)} of {len(noticed)}", len(waits) == len(noticed))
        )
        self.found.append(Finding("notice to closed, p50", f"{middle:.2f} s", middle <= 2))
        self.found.append(Finding("notice to closed, p99", f"{late:.2f} s", late <= 5))

    def _report_replacements(self, count: int, since: float) -> None:
        """Wait a minute more for nodes that are booting, and see what serves."""
        assert self.witness is not None
        in_time = self._ready_by(since + NOTICE_SECONDS)
        deadline = time.monotonic() + 120
        while self.road.world.pods()[1] and time.monotonic() < deadline:
            time.sleep(3)
        spot = sum(each["lifecycle"] == "spot" for each in self._launched())
        pools = {(each["zone_id"], each["instance_type"]) for each in self._launched()}
        ours = len(self._launched())
        self.found.append(Finding("replacements launched", f"{ours}, {spot} spot", ours >= count))
        self.found.append(Finding("pools they are in", str(len(pools)), len(pools) > 1))
        self.found.append(
            Finding("ready before the deadline", f"{in_time} of {count}", in_time >= count * 0.9)
        )
        running, pending = self.road.world.pods()
        settled = f"{running} ({pending} pending) after {time.time() - since:.0f} s"
        self.found.append(Finding("pods running", settled, pending == 0))

    def _ready_by(self, instant: float) -> int:
        assert self.witness is not None
        names = {each["private_dns"] for each in self._launched()}
        return sum(self.witness.ready_at.get(name, instant + 1) <= instant for name in names)

    def _launched(self) -> list[dict[str, Any]]:
        found = self.road.world.read("launches")["launches"]
        return [each for each in found if "spotopt:action-id" in each["tags"]]

    def _nodes(self) -> list[dict[str, Any]]:
        machines = self.road.world.read("machines")["machines"]
        return [each for each in machines if each["state"] == "running" and not each["interrupted_at"]]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when every finding is good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="nodes that AWS takes at once")
    parser.add_argument("--signals", type=int, default=200, help="rebalance signals after it; 0 for none")
    parser.add_argument("--state", type=Path, default=ROOT / ".spotopt" / "interruptions")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    instance = start(state=options.state, fleet="spot", speed=1, seed=7)
    storm = Storm(instance)
    try:
        storm.prepare()
        storm.interrupt(options.count)
        if options.signals:
            storm.rebalance(options.signals, seconds=150)
        storm.check()
    finally:
        if storm.witness is not None:
            storm.witness.stop()
        storm.road.agents.stop()
        instance.stop()
    for finding in storm.found:
        mark = "ok  " if finding.is_good else "BAD "
        print(f"{mark} {finding.name:<32} {finding.value}")  # noqa: T201  # the report is the output
    print(f"     {'wall time':<32} {time.monotonic() - begun:.0f} s", flush=True)  # noqa: T201
    return 0 if all(finding.is_good for finding in storm.found) else 1


if __name__ == "__main__":
    sys.exit(main())
