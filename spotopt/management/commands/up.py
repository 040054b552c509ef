"""`manage.py up`: the whole product on one machine, against the simulated world."""

import signal
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from spotopt.management.runtime import Options, Runtime


class Command(BaseCommand):
    """Starts stores, simulator, web, worker, beat and agents; supervises them until Ctrl-C."""

    help = "Run Spotopt on this machine with embedded PostgreSQL and Redis and a simulated AWS."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Name the options."""
        parser.add_argument("--state", type=Path, default=settings.BASE_DIR / ".spotopt" / "run")
        parser.add_argument("--port", type=int, default=8000, help="port of the pages and the API")
        parser.add_argument("--fleet", default="demo", choices=["demo", "small", "many", "spot"])
        parser.add_argument("--seed", type=int, default=7, help="of the simulated world")
        parser.add_argument("--speed", type=float, default=10.0, help="simulated seconds in one second")
        parser.add_argument("--no-demo", action="store_true", help="create no organization and no agents")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until interrupted."""
        runtime = Runtime(
            Options(
                state=options["state"].resolve(),
                port=options["port"],
                fleet=options["fleet"],
                seed=options["seed"],
                speed=options["speed"],
                has_demo=not options["no_demo"],
            ),
            say=self.stdout.write,
        )
        for stop_signal in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop_signal, lambda *_: runtime.request_stop())
        runtime.run()
