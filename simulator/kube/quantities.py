"""Kubernetes quantities and timestamps, both ways."""

from datetime import UTC, datetime
from functools import lru_cache

SUFFIXES = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
}  # fmt: skip


@lru_cache(maxsize=4096)
def cpu_millis(text: str | int | float) -> int:
    """Thousandths of a core, rounded up: "250m", "2", "0.5"."""
    value = str(text)
    if value.endswith("n"):
        return -(-int(value[:-1]) // 1_000_000)
    if value.endswith("m"):
        return int(value[:-1])
    return round(float(value) * 1000)


@lru_cache(maxsize=4096)
def memory_bytes(text: str | int | float) -> int:
    """Bytes: "512Mi", "1G", "1073741824"."""
    value = str(text)
    for suffix, factor in SUFFIXES.items():
        if value.endswith(suffix):
            return int(float(value[: -len(suffix)]) * factor)
    return int(float(value))


@lru_cache(maxsize=4096)
def stamp(at: datetime) -> str:
    """RFC 3339 to the second, as the API server writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=4096)
def instant(text: str) -> datetime:
    """The aware instant behind a timestamp."""
    return datetime.fromisoformat(text)


def whole_or_percent(value: int | str, total: int, *, round_up: bool) -> int:
    """An absolute number, or a share of the total for "25%"."""
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        return int(value)
    share = int(value[:-1]) * total
    return -(-share // 100) if round_up else share // 100
