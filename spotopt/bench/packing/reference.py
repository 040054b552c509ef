"""What the leading open-source autoscaler's own scheduler reaches, from the data's ``reference.md``."""

from dataclasses import dataclass
from pathlib import Path

_FIRST_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class Reference:
    """One workload on one catalogue."""

    workload: str
    catalogue: str
    peer: float
    """USD per hour of the peer's packing."""


def peer_costs(data: Path) -> list[Reference]:
    """Return the lines of the first table that have a cost of the peer."""
    table = (data / "reference.md").read_text().split("## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in table if line.startswith("|")]
    return [
        Reference(row[0], row[1], float(row[2]))
        for row in rows
        if len(row) >= _FIRST_COLUMNS and row[2].replace(".", "", 1).isdigit()
    ]
