"""The main job from sign-up to booked savings, through the public API alone."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx

from simulator.customer import create_stack
from spotopt.tests.smoke.client import Agents, ApiClient, wait_until
from spotopt.tests.smoke.instance import Instance
from spotopt.tests.smoke.truth import Before, Finding, World, findings

CUSTOMER_ACCOUNT = "111122223333"
OVER = frozenset({"completed", "stopped", "rejected", "expired", "superseded"})
PLAN_SECONDS = 900
DEFAULT_MIN_SAVING_PERCENT = 15


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  # progress of a command


@dataclass(slots=True)
class Road:
    """One run on one instance."""

    instance: Instance
    min_saving_percent: Decimal = Decimal(45)
    say: Callable[[str], None] = _say
    meanwhile: Callable[[], bool] | None = None
    """Called at each look while plans run, and until it returns True; the fault runs kill processes here."""
    api: ApiClient = field(init=False)
    world: World = field(init=False)
    agents: Agents = field(init=False)
    plans: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api = ApiClient(self.instance.url)
        self.world = World(self.instance.control_url)
        self.agents = Agents(self.instance.state / "agents")

    @property
    def is_over(self) -> bool:
        """Tell whether every plan was over at the last look."""
        return set(self.plans.values()) <= OVER

    def drive(self) -> Before:
        """Sign up, link, verify, scan, connect, optimize, approve, and wait until every plan is over."""
        self.api.sign_up("smoke@spotopt.example", "Smoke test")
        self.link()
        clusters = self.api.get("/clusters")["clusters"]
        self.say(f"scan found {len(clusters)} clusters")
        for cluster in clusters:
            self.set_policy(cluster)
            self.connect(cluster)
        for cluster in clusters:
            path = f"/clusters/{cluster['id']}"
            wait_until(f"the agent of {cluster['name']}", lambda p=path: self._is_reporting(p), seconds=90)
        self.say("agents connected")
        before = Before(self.world.usd_per_hour(), self.world.pods()[0])
        for cluster in clusters:
            self.optimize(cluster)
        self.follow()
        return before

    def link(self) -> None:
        """Link the simulated account and wait for its first scan."""
        request = {
            "aws_account_id": CUSTOMER_ACCOUNT,
            "alias": "Main",
            "region": "us-east-1",
            "permission_mode": "full_access",
        }
        link = self.api.post("/connect/link", request)
        template = httpx.get(link["template_url"], timeout=30)
        template.raise_for_status()
        role_arn = create_stack(
            endpoint=self.instance.aws_url,
            account_id=CUSTOMER_ACCOUNT,
            template=template.text,
            external_id=link["external_id"],
        )
        account_id = link["account"]["id"]
        self.api.post("/connect/verify", {"account_id": account_id, "role_arn": role_arn})
        path = f"/accounts/{account_id}/scan"
        scan = wait_until("the first scan", lambda: self._finished_scan(path), seconds=120)
        self.say(f"account verified, scan {scan['status']}: {scan['instances_found']} instances")

    def set_policy(self, cluster: dict[str, Any]) -> None:
        """Ask of plans the saving that the run demands, where that is less than the policy's default."""
        least = min(DEFAULT_MIN_SAVING_PERCENT, int(self.min_saving_percent))
        change = {"config": {"binpack": {"min_saving_percent": least}}}
        self.api.patch(f"/policies/{cluster['id']}", change)

    def connect(self, cluster: dict[str, Any]) -> None:
        """Start the cluster's agent with a one-use key."""
        issued = self.api.post("/clusters/connect", {"cluster_id": cluster["id"]})
        kubernetes = self.world.read(f"clusters/{cluster['name']}/credentials")
        self.agents.directory.mkdir(parents=True, exist_ok=True)
        self.agents.start(
            cluster["name"],
            {
                **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                "SPOTOPT_CLOCK": self.instance.clock(),
                "SPOTOPT_API_URL": self.instance.url,
                "SPOTOPT_CLUSTER_ID": cluster["id"],
                "SPOTOPT_API_TOKEN": issued["api_token"],
                "SPOTOPT_KUBE_SERVER": kubernetes["server"],
                "SPOTOPT_KUBE_TOKEN": kubernetes["token"],
            },
        )

    def optimize(self, cluster: dict[str, Any]) -> None:
        """Ask for a plan and approve it."""
        self.agents.revive()
        # a proposal made without asking may be under way: then its run is the one to follow
        job = self.api.post(f"/clusters/{cluster['id']}/optimize", may_conflict=True)
        path = f"/jobs/{job['job_id']}"
        done = wait_until(f"the plan for {cluster['name']}", lambda: self._finished_job(path), seconds=180)
        if done["status"] != "completed":
            raise SystemExit(f"Optimizing {cluster['name']} failed: {done}")
        plan = self.api.get(f"/plans/{done['plan_id']}")
        self.say(
            f"{cluster['name']}: {plan['nodes_before']} to {plan['nodes_after']} nodes, "
            f"${plan['usd_per_hour_before']}/h to ${plan['usd_per_hour_after']}/h"
        )
        self.api.post(f"/plans/{plan['id']}/approve")
        self.plans[plan["id"]] = "approved"

    def follow(self) -> None:
        """Wait until every plan is over, and everything has happened that should in the meantime."""
        deadline = time.monotonic() + PLAN_SECONDS
        is_done = self.meanwhile is None
        while not (is_done and self.is_over):
            if time.monotonic() > deadline:
                raise SystemExit(f"The plans did not end within {PLAN_SECONDS} s: {self.plans}")
            self.agents.revive()
            if self.meanwhile is not None:
                is_done = self.meanwhile()
            for plan_id in self.plans:
                plan = self.api.get(f"/plans/{plan_id}")
                if plan["status"] != self.plans[plan_id]:
                    self.say(f"plan {plan_id[:8]} {plan['status']} {plan['stop_reason']}")
                    self.plans[plan_id] = plan["status"]
            time.sleep(1)

    def report(self, before: Before) -> list[Finding]:
        """Wait until the ledger has booked past the last change, then compare everything with the truth."""
        changed = self.world.read("status")["now"]
        kpi = wait_until("the ledger", lambda: self._booked_after(changed), seconds=90)
        return findings(
            world=self.world,
            before=before,
            booked_usd=Decimal(kpi["booked_usd"]),
            booked_until=kpi["booked_until"],
            plans=sorted(self.plans.values()),
            min_saving_percent=self.min_saving_percent,
        )

    def _is_reporting(self, path: str) -> bool:
        self.agents.revive()
        return self.api.get(path)["snapshot_at"] is not None

    def _finished_scan(self, path: str) -> Any:
        scan = self.api.get(path)
        if scan["status"] == "failed":
            raise SystemExit(f"The scan failed: {scan}")
        return scan if scan["status"] in ("completed", "partial") else None

    def _finished_job(self, path: str) -> Any:
        job = self.api.get(path)
        return job if job["status"] in ("completed", "failed", "cancelled") else None

    def _booked_after(self, moment: str) -> Any:
        kpi = self.api.get("/metrics/savings")
        until = kpi["booked_until"]
        is_later = until and datetime.fromisoformat(until) > datetime.fromisoformat(moment)
        return kpi if is_later else None
