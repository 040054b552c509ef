"""Reads recorded spot availability: how much of a pool was there, tick by tick."""

import gzip
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DATA_VARIABLE = "REPLAY_TRACES"
DEFAULT_DATA = Path("../shared/data/dev/E1_skypilot_spot_traces")
LEFT_OUT = "gcp"
"""Traces of another cloud, two days long and almost without a loss: they would only flatter."""
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Trace:
    """One recording; ``levels`` are nodes up at each tick, of at most ``most``."""

    name: str
    batch: str
    """Recordings of one batch were made side by side."""
    gap_seconds: float
    levels: tuple[int, ...]

    @property
    def most(self) -> int:
        """Return the most nodes that were up at once."""
        return max(self.levels)

    @property
    def availability(self) -> float:
        """Return the mean share that was up."""
        return sum(self.levels) / (len(self.levels) * self.most)

    @property
    def losses_per_up_hour(self) -> float:
        """Return how often it fell, for each hour that it was up."""
        falls = sum(after < before for before, after in zip(self.levels, self.levels[1:], strict=False))
        return falls / max(sum(self.levels) / self.most * self.gap_seconds / HOUR, 1.0)

    def window(self, start: float, seconds: float) -> list[tuple[float, float]]:
        """Return (second, share up) at 0 and at each change within a window that opens at ``start``, 0 to 1.

        The recording is read from that part of its length on, and again from its beginning when it ends.
        """
        first = int(start * len(self.levels)) % len(self.levels)
        most = self.most
        changes: list[tuple[float, float]] = []
        for tick in range(int(seconds // self.gap_seconds) + 1):
            share = self.levels[(first + tick) % len(self.levels)] / most
            if not changes or share != changes[-1][1]:
                changes.append((tick * self.gap_seconds, share))
        return changes


def traces_directory(given: str | None) -> Path | None:
    """Return the folder of the recordings: the given one, that of the environment, or the default."""
    folder = Path(given or os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)
    return folder if folder.is_dir() else None


def load_traces(folder: Path) -> Sequence[Trace]:
    """Return every recording of AWS, by name."""
    return tuple(
        _load(path, folder)
        for path in sorted(folder.rglob("*.json.gz"))
        if not path.parent.name.startswith(LEFT_OUT)
    )


def _load(path: Path, folder: Path) -> Trace:
    with gzip.open(path, "rt") as file:
        recorded = json.load(file)
    levels = tuple(int(level) for level in recorded["data"])
    name = path.relative_to(folder).as_posix().removesuffix(".json.gz")
    return Trace(name, path.parent.name, float(recorded["metadata"]["gap_seconds"]), levels)
