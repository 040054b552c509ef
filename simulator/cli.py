"""The simulator as a process: start or resume a world, let it live, stop cleanly."""

import argparse
import json
import logging
import shutil
import signal
import sys
import threading
from pathlib import Path

from simulator.aws.server import AwsServer
from simulator.clock import Clock
from simulator.fleet import StartingFleet
from simulator.fleets import FLEET_NAMES, starting_fleet
from simulator.journal import Journal
from simulator.machines import MachineRoom
from simulator.market import Market
from simulator.server import KubeServer
from simulator.spot import SpotLife
from simulator.world import World

DATA_DIR = Path(__file__).resolve().parent.parent / "clusters" / "data"
TICK_SECONDS = 0.25
DEFAULT_RATES = {"demo": 1.0}
log = logging.getLogger("simulator")


class Simulator:
    """Everything that one process serves."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        state: Path = arguments.state
        state.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(state / "world.sqlite")
        self._aws_dir = state / "aws"
        name, seed = _settle_identity(self._journal, arguments.fleet, arguments.seed)
        self.clock = Clock.from_environment()
        self.stopped = threading.Event()
        self._room = MachineRoom(self._journal)
        self._market = Market(seed=seed, data_dir=DATA_DIR)
        fleet = starting_fleet(name, seed)
        self._aws = self._start_aws(fleet, arguments, seed)
        self.world = World(
            clock=self.clock,
            journal=self._journal,
            room=self._room,
            market=self._market,
            starting=fleet,
            seed=seed,
            seller=self._aws.seller,
        )
        rate = DEFAULT_RATES.get(name, 0.0) if arguments.interruptions is None else arguments.interruptions
        self._spot = SpotLife(room=self._room, market=self._market, interruption_rate=rate)
        self._kube = KubeServer(
            self.world, port=arguments.kube_port, aws_faults=self._aws.faults, stop=self.stopped.set
        )

    def start(self) -> None:
        """Listen on both ports."""
        self._aws.start()
        self._kube.start()

    def run(self) -> None:
        """Move machines, prices and Auto Scaling groups until asked to stop."""
        while not self.stopped.wait(TICK_SECONDS):
            self._tick()

    def stop(self) -> None:
        """Stop listening and close the journal."""
        self._kube.stop()
        self._aws.stop()
        self._journal.close()

    def _tick(self) -> None:
        now = self.clock.now()
        try:
            self._room.advance(now)
            self._spot.tick(now)
            self._aws.tick(now)
        except Exception:
            log.exception("A tick failed; the next one tries again")

    def _start_aws(self, fleet: StartingFleet, arguments: argparse.Namespace, seed: int) -> AwsServer:
        has_machines = bool(self._room.all())
        if not has_machines:
            shutil.rmtree(self._aws_dir, ignore_errors=True)
        aws = AwsServer(
            room=self._room,
            market=self._market,
            clock=self.clock,
            state_dir=self._aws_dir,
            port=arguments.aws_port,
            seed=seed,
            kube_url=f"http://127.0.0.1:{arguments.kube_port}",
        )
        if has_machines:
            aws.resume()
        else:
            aws.provision(fleet)
        return aws


def main(arguments: list[str] | None = None) -> int:
    """Run the process; its first line of output is a JSON object with event `ready`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parsed = _parser().parse_args(arguments)
    simulator = Simulator(parsed)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: simulator.stopped.set())
    simulator.start()
    ready = {
        "event": "ready",
        "aws": f"http://127.0.0.1:{parsed.aws_port}",
        "kube": f"http://127.0.0.1:{parsed.kube_port}",
        "clusters": sorted(simulator.world.clusters),
    }
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    try:
        simulator.run()
    finally:
        simulator.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="simulator", description="A simulated AWS with EKS clusters.")
    parser.add_argument("--state", type=Path, required=True, help="directory that remembers the world")
    parser.add_argument("--aws-port", type=int, required=True)
    parser.add_argument("--kube-port", type=int, required=True)
    parser.add_argument("--fleet", choices=FLEET_NAMES, default="demo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--interruptions", type=float, help="spot interruptions, 1 = the advisor's rate, 0 = none"
    )
    return parser


def _settle_identity(journal: Journal, fleet: str, seed: int) -> tuple[str, int]:
    """The fleet and seed that this world was begun with; what is asked for now counts only at its birth."""
    known = journal.read("identity").get("identity")
    if known is None:
        known = {"fleet": fleet, "seed": seed}
        journal.write({"identity": known})
    if known != {"fleet": fleet, "seed": seed}:
        log.warning("This world is %s, seed %s: the options are ignored", known["fleet"], known["seed"])
    return known["fleet"], known["seed"]
