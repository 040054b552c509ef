"""Pages of a list by key: stable while rows come and go, and as fast on the last page as on the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core import signing
from django.db.models import Model, Q, QuerySet

_Row = TypeVar("_Row")
_Record = TypeVar("_Record", bound=Model)
_SALT = "spotopt.cursor"


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """Some rows of a list, and the cursor of the next page (empty on the last)."""

    rows: tuple[_Row, ...]
    sort: str
    next_cursor: str = ""
    total: int | None = None


def page_by_key(
    rows: QuerySet[_Record], *, sort: str, columns: Mapping[str, str], after: str, size: int
) -> tuple[list[_Record], str, str]:
    """Return (rows, sort in force, next cursor); ``columns`` maps sort names to never-null columns.

    The first of ``columns`` is the default; a ``-`` before the name reverses it. A cursor that is not ours
    starts over.
    """
    name = sort.removeprefix("-")
    if name not in columns:
        sort = name = next(iter(columns))
    column, reverse = columns[name], sort.startswith("-")
    cursor = _read(after, sort)
    if cursor is not None:
        value, key = cursor
        beyond = "lt" if reverse else "gt"
        rows = rows.filter(Q(**{f"{column}__{beyond}": value}) | Q(**{column: value, "pk__gt": key}))
    found = list(rows.order_by(f"{'-' if reverse else ''}{column}", "pk")[: size + 1])
    if len(found) <= size:
        return found, sort, ""
    last = found[size - 1]
    return found[:size], sort, signing.dumps([sort, _plain(_value(last, column)), str(last.pk)], salt=_SALT)


def _read(after: str, sort: str) -> tuple[Any, str] | None:
    if not after:
        return None
    try:
        made_for, value, key = signing.loads(after, salt=_SALT)
    except signing.BadSignature:
        return None
    return (value, key) if made_for == sort else None


def _value(row: Model, column: str) -> object:
    value: object = row
    for part in column.split("__"):
        value = getattr(value, part)
    return value


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) else str(value)
