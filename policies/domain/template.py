"""Whether a node template makes sense: families that exist, match its architecture and leave a size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ERROR", "WARNING", "INFO"]
IO1_IOPS_PER_GB = 50
IO2_IOPS_PER_GB = 500
GP3_MAX_IOPS = 16_000
GP3_MAX_THROUGHPUT_MIBPS = 1_000


@dataclass(frozen=True, slots=True)
class KnownType:
    """One instance type of the catalogue."""

    family: str
    size: str
    arch: str
    """``x86_64`` or ``arm64``."""
    is_burstable: bool
    has_gpu: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """The root volume of a node."""

    kind: str
    size_gb: int
    iops: int | None = None
    throughput_mibps: int | None = None


@dataclass(frozen=True, slots=True)
class Issue:
    """Something the author of a template should know; an ERROR forbids saving it."""

    severity: Severity
    message: str
    family: str = ""


def examine(
    *,
    families: Sequence[str],
    architecture: str,
    excluded_sizes: Iterable[str],
    disk: Disk,
    catalogue: Iterable[KnownType],
) -> list[Issue]:
    """Return every issue of a template, errors first."""
    by_family: dict[str, list[KnownType]] = {}
    for known in catalogue:
        by_family.setdefault(known.family, []).append(known)
    issues = [issue for family in families if (issue := _misfit(family, architecture, by_family))]
    chosen = [known for family in families for known in by_family.get(family, [])]
    issues += _emptiness(chosen, architecture, frozenset(excluded_sizes), has_errors=bool(issues))
    issues += _mixtures(chosen, families)
    issues += _disk_issues(disk)
    return sorted(issues, key=lambda issue: ("ERROR", "WARNING", "INFO").index(issue.severity))


def is_excluded(size: str, excluded_sizes: Iterable[str]) -> bool:
    """Tell whether a size is refused: ``metal`` also refuses ``metal-24xl``."""
    return any(size == refused or size.startswith(f"{refused}-") for refused in excluded_sizes)


def _misfit(family: str, architecture: str, by_family: dict[str, list[KnownType]]) -> Issue | None:
    known = by_family.get(family)
    if not known:
        return Issue("ERROR", f"{family} is not an instance family that Spotopt knows.", family)
    if all(item.arch != architecture for item in known):
        return Issue("ERROR", f"{family} is {known[0].arch}; the template is {architecture}.", family)
    return None


def _emptiness(
    chosen: Sequence[KnownType], architecture: str, excluded: frozenset[str], *, has_errors: bool
) -> list[Issue]:
    left = [item for item in chosen if item.arch == architecture and not is_excluded(item.size, excluded)]
    if left or has_errors:
        return []
    return [Issue("ERROR", "The excluded sizes leave no instance type to launch.")]


def _mixtures(chosen: Sequence[KnownType], families: Sequence[str]) -> list[Issue]:
    gpu = {item.family for item in chosen if item.has_gpu}
    burstable = {item.family for item in chosen if item.is_burstable}
    issues = []
    if gpu and gpu != set(families):
        listed = ", ".join(sorted(gpu))
        issues.append(
            Issue("WARNING", f"GPU families ({listed}) beside others: only pods that ask get a GPU.")
        )
    if burstable and burstable != set(families):
        listed = ", ".join(sorted(burstable))
        issues.append(Issue("INFO", f"Burstable families ({listed}): CPU is throttled without credits."))
    return issues


def _disk_issues(disk: Disk) -> list[Issue]:
    per_gb = {"io1": IO1_IOPS_PER_GB, "io2": IO2_IOPS_PER_GB}.get(disk.kind)
    messages = []
    if per_gb and disk.iops is None:
        messages.append(f"{disk.kind} needs a number of IOPS.")
    if per_gb and disk.iops and disk.iops > per_gb * disk.size_gb:
        messages.append(f"{disk.kind} gives at most {per_gb} IOPS per GB: {per_gb * disk.size_gb:,} here.")
    if disk.kind == "gp3" and (disk.iops or 0) > GP3_MAX_IOPS:
        messages.append(f"gp3 gives at most {GP3_MAX_IOPS:,} IOPS.")
    if disk.kind == "gp2" and disk.iops:
        messages.append("gp2 takes no number of IOPS: it follows from the size.")
    if disk.throughput_mibps and disk.kind != "gp3":
        messages.append("Only gp3 takes a throughput.")
    if (disk.throughput_mibps or 0) > GP3_MAX_THROUGHPUT_MIBPS:
        messages.append(f"gp3 gives at most {GP3_MAX_THROUGHPUT_MIBPS:,} MiB/s.")
    return [Issue("ERROR", message) for message in messages]
