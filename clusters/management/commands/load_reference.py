"""Load the bundled instance types, on-demand prices and Spot Advisor."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from clusters.services import market


class Command(BaseCommand):
    """Load reference data; running it again changes nothing."""

    help = "Load the bundled instance types, on-demand prices and Spot Advisor (idempotent)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--advisor", type=Path, help="a newer Spot Advisor file of the bundled shape")

    def handle(self, *args: Any, advisor: Path | None = None, **options: Any) -> None:
        loaded = market.load_reference_data()
        self.stdout.write(
            f"{loaded.instance_types} instance types, {loaded.prices} on-demand prices and "
            f"{loaded.interruption_rates} interruption rates are loaded; {loaded.changed} rows changed."
        )
        if advisor is not None:
            written = market.load_advisor(advisor)
            self.stdout.write(f"{advisor.name}: {written.inserted} new, {written.updated} changed.")
