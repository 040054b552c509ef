"""Kubernetes' amounts and durations, as the fields of a NodePool spell them."""

import math
import re
from decimal import Decimal

_FACTORS = {
    "m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "Ki": Decimal(2**10), "Mi": Decimal(2**20),
    "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_DURATION = re.compile(r"(?:[0-9]+[smh])+")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
NEVER = "Never"
_MIB = 2**20
_STEP_BITS = 4


def amount(value: object) -> Decimal:
    """Return an amount such as ``1500m``, ``1000Gi`` or ``4``; raise ValueError for another form."""
    found = _AMOUNT.fullmatch(str(value))
    if found is None:
        raise ValueError(f"{value!r} is no amount.")
    return Decimal(found[1]) * _FACTORS[found[2] or ""]


def rounded_down(value: Decimal, resource: str) -> str:
    """Return at most this amount, at most an eighth less, so that small changes do not show."""
    unit = _MIB if resource in ("memory", "ephemeral-storage") else 1
    whole = max(0, int(value / unit))
    step = 1 << max(0, whole.bit_length() - _STEP_BITS)
    rounded = whole // step * step
    return f"{rounded}Mi" if unit == _MIB else str(rounded)


def seconds(text: str) -> float:
    """Return a duration such as ``1h30m`` in seconds, infinity for ``Never``; raise ValueError otherwise."""
    if text == NEVER:
        return math.inf
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration.")
    return sum(int(part[:-1]) * _SECONDS[part[-1]] for part in re.findall(r"[0-9]+[smh]", text))
