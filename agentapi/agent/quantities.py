"""Kubernetes quantities in whole units."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "E": Decimal(10**18), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
}  # fmt: skip
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,3})|([numkMGTPE]|[KMGTPE]i)?)")
_MIB = Decimal(2**20)
MOST = 2**31 - 1
"""The protocol carries no larger number; what asks for more fits nowhere, as what asks for so much."""


@lru_cache(maxsize=4096)
def quantity(text: str) -> Decimal:
    """Return the value of a quantity such as ``1500m`` or ``2Gi``; raise ValueError for another form."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity.")
    number, exponent, suffix = found.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""])


def whole(text: str) -> int:
    """Return a number of things, rounded up."""
    return _whole(math.ceil, quantity(text))


def millis(text: str) -> int:
    """Return a CPU quantity in thousandths, rounded up."""
    return _whole(math.ceil, quantity(text) * 1000)


def mib(text: str) -> int:
    """Return a memory quantity in MiB, rounded up."""
    return _whole(math.ceil, quantity(text) / _MIB)


def mib_below(text: str) -> int:
    """Return a memory quantity in MiB, rounded down, as room must be."""
    return _whole(math.floor, quantity(text) / _MIB)


def _whole(rounded: Callable[[Decimal], int], value: Decimal) -> int:
    return rounded(min(max(value, Decimal(0)), Decimal(MOST)))
