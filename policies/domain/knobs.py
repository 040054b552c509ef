"""Kinds of knobs of the policy document: each knows its default and refuses values it cannot take."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from decimal import Decimal, InvalidOperation
from typing import Any

Check = Callable[[object], Any]
"""Returns the parsed value, or raises BadValue."""

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_MAX_ITEMS = 200
_MAX_USD = Decimal(1_000_000)


class BadValue(Exception):
    """A knob cannot take the value; the text says what it can take, as in ``must be true or false.``."""


def switch(default: bool) -> Any:
    """Declare an on/off knob."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise BadValue("must be true or false.")
        return value

    return field(default=default, metadata={"check": check})


def whole(default: int | None, *, least: int, most: int) -> Any:
    """Declare a whole number from ``least`` to ``most``; null is allowed when it is the default."""

    def check(value: object) -> int | None:
        if value is None and default is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise BadValue(f"must be a whole number from {least} to {most}.")
        return value

    return field(default=default, metadata={"check": check})


def number(default: float, *, least: float, most: float) -> Any:
    """Declare a score or weight from ``least`` to ``most``; never money."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise BadValue(f"must be a number from {least:g} to {most:g}.")
        return float(value)

    return field(default=default, metadata={"check": check})


def money(default: str | None, *, optional: bool = False) -> Any:
    """Declare US dollars, written as a decimal string; null is allowed if optional or the default."""

    def check(value: object) -> Decimal | None:
        if value is None and (optional or default is None):
            return None
        if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
            raise BadValue('must be US dollars as a decimal string, such as "0.25".')
        try:
            usd = Decimal(value)
        except InvalidOperation:
            usd = Decimal("NaN")
        if not usd.is_finite() or not 0 <= usd <= _MAX_USD or usd != round(usd, 6):
            raise BadValue(f"must be US dollars from 0 to {_MAX_USD:,} with at most six decimals.")
        return round(usd, 6).normalize() + 0

    return field(default=None if default is None else Decimal(default), metadata={"check": check})


def one_of(default: str, *others: str) -> Any:
    """Declare a choice."""
    choices = (default, *others)

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise BadValue(f"must be {' or '.join(choices)}.")
        return value

    return field(default=default, metadata={"check": check})


def namespaces(*always: str) -> Any:
    """Declare Kubernetes namespaces; ``always`` cannot be taken out."""

    def check(value: object) -> tuple[str, ...]:
        return _names(value, _NAMESPACE, "Kubernetes namespaces", always)

    return field(default=tuple(sorted(always)), metadata={"check": check})


def words(what: str) -> Any:
    """Declare a list of names, such as instance types."""

    def check(value: object) -> tuple[str, ...]:
        return _names(value, _WORD, what, ())

    return field(default=(), metadata={"check": check})


def labels() -> Any:
    """Declare Kubernetes labels: keys with the value each must have."""

    def check(value: object) -> dict[str, str]:
        if not isinstance(value, Mapping) or len(value) > _MAX_ITEMS:
            raise BadValue(f"must be an object of at most {_MAX_ITEMS} labels.")
        for key, text in value.items():
            words_are_fit = isinstance(key, str) and _WORD.fullmatch(key) and isinstance(text, str)
            if not words_are_fit or not _LABEL_VALUE.fullmatch(text):
                raise BadValue(f"must be Kubernetes labels; {key!r} is not one, or its value is not.")
        return dict(sorted(value.items()))

    return field(default_factory=dict, metadata={"check": check})


def choice_by_namespace(*choices: str) -> Any:
    """Declare one choice for each of some namespaces."""

    def check(value: object) -> dict[str, str]:
        if not isinstance(value, Mapping):
            raise BadValue("must be an object of namespaces.")
        _names(list(value), _NAMESPACE, "Kubernetes namespaces", ())
        if not set(value.values()) <= set(choices):
            raise BadValue(f"must say {' or '.join(choices)} for each namespace.")
        return dict(sorted(value.items()))

    return field(default_factory=dict, metadata={"check": check})


def _names(value: object, form: re.Pattern[str], what: str, always: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MAX_ITEMS:
        raise BadValue(f"must be a list of at most {_MAX_ITEMS} {what}.")
    for name in value:
        if not (isinstance(name, str) and form.fullmatch(name)):
            raise BadValue(f"must be {what}; {name!r} is not one.")
    return tuple(sorted({*value, *always}))
