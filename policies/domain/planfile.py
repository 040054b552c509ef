"""A proposal as JSON, and back: the form in which a plan is stored and re-read before each wave."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from policies.domain.plan import Launch, PlanProposal, Refusal, Removal, Wave
from policies.domain.shapes import CapacityType


def waves_as_json(proposal: PlanProposal) -> list[dict[str, Any]]:
    """Return the waves with prices as strings, ready for a JSON column."""
    return [_plain(asdict(wave)) for wave in proposal.waves]


def refusals_as_json(refusals: Sequence[Refusal]) -> list[dict[str, str]]:
    """Return the refusals as plain mappings."""
    return [asdict(refusal) for refusal in refusals]


def waves_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Wave, ...]:
    """Return the waves that ``waves_as_json`` wrote."""
    return tuple(
        Wave(
            launches=tuple(_launch(row) for row in wave["launches"]),
            removals=tuple(_removal(row) for row in wave["removals"]),
        )
        for wave in rows
    )


def _launch(row: Mapping[str, Any]) -> Launch:
    return Launch(
        **{
            **row,
            "capacity_type": CapacityType(row["capacity_type"]),
            "usd_per_hour": Decimal(row["usd_per_hour"]),
            "alternatives": tuple(row["alternatives"]),
            "pods": tuple((workload, count) for workload, count in row["pods"]),
        }
    )


def _removal(row: Mapping[str, Any]) -> Removal:
    return Removal(**{**row, "usd_per_hour": Decimal(row["usd_per_hour"])})


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
