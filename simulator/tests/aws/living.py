"""A whole AWS in a process of its own, to be killed: `python -m simulator.tests.aws.living STATE PORT`."""

import sys
import time
from pathlib import Path

from simulator.aws.server import AwsServer
from simulator.clock import Clock
from simulator.journal import Journal
from simulator.machines import MachineRoom
from simulator.market import Market
from simulator.tests.aws.conftest import DATA, FLEET


def main(state_dir: Path, port: int) -> None:
    """Start or resume, say so, and live until killed."""
    known, clock = (state_dir / "aws.sqlite").exists(), Clock()
    room = MachineRoom(Journal(state_dir / "room.sqlite"))
    market = Market(seed=1, data_dir=DATA)
    server = AwsServer(
        room=room,
        market=market,
        clock=clock,
        state_dir=state_dir,
        port=port,
        seed=1,
        kube_url="http://127.0.0.1:1",
    )
    began = time.monotonic()
    if known:
        server.resume()
    else:
        server.provision(FLEET)
    server.start()
    sys.stdout.write(f"{time.monotonic() - began:.2f}\n")
    sys.stdout.flush()
    while True:
        time.sleep(0.1)
        room.advance(clock.now())
        server.tick(clock.now())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
