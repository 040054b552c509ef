"""Kubernetes quantities in whole units."""

import math
from decimal import Decimal, InvalidOperation
from functools import lru_cache

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
}  # fmt: skip
_MIB = Decimal(2**20)


@lru_cache(maxsize=4096)
def quantity(text: str) -> Decimal:
    """Return the value of a quantity such as ``1500m`` or ``2Gi``; raise ValueError for another form."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzKMGTPE") if "e" not in text.lower() else text
    suffix = text[len(number) :]
    try:
        return Decimal(number) * _SUFFIXES[suffix]
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{text!r} is not a quantity.") from error


def millis(text: str) -> int:
    """Return a CPU quantity in thousandths, rounded up."""
    return math.ceil(quantity(text) * 1000)


def mib(text: str) -> int:
    """Return a memory quantity in MiB, rounded up."""
    return math.ceil(quantity(text) / _MIB)


def mib_below(text: str) -> int:
    """Return a memory quantity in MiB, rounded down, as room must be."""
    return math.floor(quantity(text) / _MIB)
