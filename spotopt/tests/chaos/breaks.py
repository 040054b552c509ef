"""Take one safeguard out at a time, provoke what it stands against, and see its counter move."""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from spotopt.management.runtime import WORKERS
from spotopt.tests.chaos import judge, report
from spotopt.tests.chaos.campaign import Campaign, Cluster
from spotopt.tests.chaos.customer import Kubernetes
from spotopt.tests.chaos.sabotage import sitecustomize
from spotopt.tests.chaos.stage import Stage
from spotopt.tests.chaos.storm import LOST_LAUNCHES
from spotopt.tests.chaos.wire import Rates
from spotopt.tests.smoke.client import wait_until
from spotopt.tests.smoke.sabotage import pid_of

SABOTAGED = ("web", *WORKERS)
"""What runs the product's code; agents start anew with their clusters."""
CLUSTERS = 2
"""For each safeguard, so that no one sees what another's absence left behind."""
LATE_MINUTES = 6
"""Longer than most actions may wait."""
_LOOK_SECONDS = 1.0
_WAIT_SECONDS, _BACK_SECONDS = 20, 60
RATES: Mapping[str, Rates] = MappingProxyType({"signature": Rates(forged=1), "nonce": Rates(replayed=1)})


class Saboteur:
    """Breaks one safeguard after the other on one stage."""

    def __init__(self, stage: Stage, *, order: Path, runs: int) -> None:
        self._stage, self._order, self._runs = stage, order, runs
        self._provocations = {
            "pdb": self._forbid_disruptions,
            "client-token": self._lose_launches,
            "recheck": self._pause_before_the_claim,
            "expiry": self._claim_late,
            "reaper": self._claim_late,
            "cleanup": self._stop_half_way,
        }

    def take_out(self, name: str, clusters: list[Cluster]) -> report.Broken:
        """Optimize the clusters without one safeguard until its counter moves; return what happened."""
        begun = time.monotonic()
        self._sabotage(name)
        stage, counter = self._stage, report.SAFEGUARDS[name][1]
        campaign = Campaign(stage, self._provocations.get(name))
        before = len(self._seen(campaign, counter))
        stage.wire.rates = RATES.get(name, Rates())
        stage.world.order("faults", {"pdb_enforcement": name != "pdb", "aws": {"fail_after": {}}})
        campaign.begin(clusters, rounds=-(-self._runs // len(clusters)), at_once=len(clusters))
        seen = self._watch(campaign, counter, before)
        stage.wire.rates = Rates()
        campaign.end()
        for evidence in seen[before : before + 3]:
            stage.say(f"{counter}: {evidence}")
        return report.Broken(
            name=name,
            moved=len(seen) - before,
            runs=campaign.tally.finished,
            seconds=time.monotonic() - begun,
        )

    def _watch(self, campaign: Campaign, counter: str, before: int) -> list[str]:
        while True:
            is_over = campaign.is_over
            seen = self._seen(campaign, counter)
            if is_over or len(seen) > before:
                return seen
            self._stage.agents.revive()
            time.sleep(_LOOK_SECONDS)

    def _seen(self, campaign: Campaign, counter: str) -> list[str]:
        return [evidence for name, evidence in judge.findings(self._stage, campaign.tally) if name == counter]

    def _sabotage(self, name: str) -> None:
        """Have the product's processes begin anew without the safeguard."""
        self._stage.say(f"without {report.SAFEGUARDS[name][0]} ({name})")
        if self._order.exists() or sitecustomize.BREAKS[name]:
            self._order.write_text(name)
            for process in SABOTAGED:
                os.kill(pid_of(self._stage.instance.state, process), signal.SIGKILL)
            wait_until("the product to be back", self._is_back, seconds=_BACK_SECONDS)

    def _is_back(self) -> bool:
        try:
            return httpx.get(f"{self._stage.instance.url}/readyz").is_success
        except httpx.TransportError:
            return False

    # --- provocations ----------------------------------------------------------------------------------

    @contextmanager
    def _forbid_disruptions(self, cluster: Cluster, _plan_id: str) -> Iterator[None]:
        kubernetes = Kubernetes(self._stage.world, cluster["name"])
        path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        for each in kubernetes.ask("GET", path)["items"]:
            strict = {"spec": {"minAvailable": "100%", "maxUnavailable": None}}
            kubernetes.ask("PATCH", f"{path}/{each['metadata']['name']}", strict)
        yield

    @contextmanager
    def _lose_launches(self, _cluster: Cluster, _plan_id: str) -> Iterator[None]:
        self._stage.world.order("faults", {"aws": {"fail_after": LOST_LAUNCHES}})
        yield

    @contextmanager
    def _pause_before_the_claim(self, cluster: Cluster, plan_id: str) -> Iterator[None]:
        with self._claims_held(cluster):
            yield
            self._wait_for(cluster, plan_id, status="pending", route="agent")
            self._pause(cluster, is_paused=True)
        time.sleep(2)
        self._pause(cluster, is_paused=False)

    @contextmanager
    def _claim_late(self, cluster: Cluster, plan_id: str) -> Iterator[None]:
        with self._claims_held(cluster):
            yield
            self._wait_for(cluster, plan_id, status="pending", route="agent")
            self._stage.sleep(minutes=LATE_MINUTES)

    @contextmanager
    def _stop_half_way(self, cluster: Cluster, plan_id: str) -> Iterator[None]:
        yield
        self._wait_for(cluster, plan_id, status="succeeded", route="agent")
        self._stage.api.post(f"/plans/{plan_id}/stop", may_conflict=True)

    @contextmanager
    def _claims_held(self, cluster: Cluster) -> Iterator[None]:
        self._stage.wire.hold(cluster["id"])
        try:
            yield
        finally:
            self._stage.wire.release(cluster["id"])

    def _pause(self, cluster: Cluster, *, is_paused: bool) -> None:
        path = f"/clusters/{cluster['id']}/maintenance"
        self._stage.api.patch(path, {"enabled": is_paused, "reason": "Fault run"})

    def _wait_for(self, cluster: Cluster, plan_id: str, *, status: str, route: str) -> None:
        """Wait until the plan has an action of this status and route."""

        def look() -> Any:
            found = self._stage.api.get(
                f"/clusters/{cluster['id']}/actions?plan_id={plan_id}&status={status}"
            )
            return any(each["route"] == route for each in found["actions"])

        wait_until(f"an action that is {status}", look, seconds=_WAIT_SECONDS, every=0.2)
