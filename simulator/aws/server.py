"""The simulated AWS, from start to stop."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from threading import Thread

from moto.core.base_backend import BackendDict

from simulator.aws.autoscaling import SimulatedAutoScaling
from simulator.aws.cloudformation import SimulatedCloudFormation, SimulatedIam
from simulator.aws.ec2 import SimulatedEc2
from simulator.aws.eks import SimulatedEks
from simulator.aws.estate import Estate
from simulator.aws.events import EventBus, SimulatedSqs
from simulator.aws.faults import AwsFaults
from simulator.aws.gate import Gate
from simulator.aws.groups import Groups
from simulator.aws.karpenter import Ec2Seller
from simulator.aws.operation import Operation
from simulator.aws.permissions import Permissions
from simulator.aws.provision import FACTS, Facts, Provisioner, facts_of
from simulator.aws.sts import SimulatedSts
from simulator.aws.wire import Server
from simulator.clock import Clock
from simulator.fleet import StartingFleet
from simulator.journal import Journal
from simulator.machines import MachineRoom
from simulator.market import Market

PATIENCE_SECONDS = 0.05


class AwsServer:
    """AWS on 127.0.0.1. moto keeps one world per process, so only one server may live in a process."""

    faults: AwsFaults

    def __init__(
        self,
        *,
        room: MachineRoom,
        market: Market,
        clock: Clock,
        state_dir: Path,
        port: int,
        seed: int,
        kube_url: str,
    ) -> None:
        BackendDict.reset()
        state_dir.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(state_dir / "aws.sqlite")
        self._estate = Estate(
            room=room, market=market, clock=clock, journal=self._journal, seed=seed, kube_url=kube_url
        )
        self._groups = Groups(self._estate)
        self._provisioner = Provisioner(self._estate, self._groups)
        permissions = Permissions(self._estate, self._groups)
        room.subscribe(EventBus(self._estate).notice)
        self._gate = Gate(self._estate, permissions, self._responders(), self._provisioner.provide_images)
        self._port = port
        self._server: Server | None = None
        self.faults = self._estate.faults
        self.seller = Ec2Seller(self._estate)

    def provision(self, fleet: StartingFleet) -> None:
        """Build the AWS of a starting fleet; after an interrupted start, finish it."""
        facts = self._journal.read(FACTS).get(FACTS) or facts_of(fleet, self._estate.now())
        groups = self._provisioner.build(facts)
        self._journal.write({FACTS: facts})
        self._groups.save(*groups)
        self._open_regions(facts)
        self._estate.room.launch_many(self._provisioner.starting_machines(facts, groups))

    def resume(self) -> None:
        """Come back after a stop or a kill with the same ids; RuntimeError when nothing was provisioned."""
        facts = self._journal.read(FACTS).get(FACTS)
        if facts is None:
            raise RuntimeError("There is no AWS to resume: provision a fleet first.")
        self._provisioner.build(facts)
        self._open_regions(facts)
        self._estate.forget_unperformed()
        self._gate.replay()

    def start(self) -> None:
        """Listen; return when calls are answered."""
        self._server = Server(self._port, self._gate)
        Thread(target=self._server.serve_forever, name="aws", daemon=True).start()
        Thread(target=self._gate.warm_up, name="aws-warm-up", daemon=True).start()

    def stop(self) -> None:
        """Stop listening and close the journal."""
        if self._server:
            self._server.close()
            self._server = None
        with self._estate.lock:
            self._journal.close()

    def tick(self, now: datetime) -> None:
        """End faults whose time is over and let groups reconcile (at a later tick, when AWS is busy)."""
        self.faults.expire(now)
        if self._estate.lock.acquire(timeout=PATIENCE_SECONDS):
            try:
                self._groups.reconcile()
            finally:
                self._estate.lock.release()

    def _open_regions(self, facts: Facts) -> None:
        used = {
            place["region"]
            for account in facts["accounts"]
            for place in (*account["clusters"], *account["instances"])
        }
        self._estate.enabled_regions |= used

    def _responders(self) -> dict[str, Callable[[], Operation]]:
        def autoscaling() -> Operation:
            responder = SimulatedAutoScaling()
            responder.groups = self._groups
            return responder

        def eks() -> Operation:
            responder = SimulatedEks()
            responder.groups = self._groups
            return responder

        return {
            "ec2": SimulatedEc2,
            "autoscaling": autoscaling,
            "eks": eks,
            "sts": SimulatedSts,
            "iam": SimulatedIam,
            "cloudformation": SimulatedCloudFormation,
            "sqs": SimulatedSqs,
        }
