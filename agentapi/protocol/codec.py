"""Turn the wire's JSON into frozen dataclasses and back, strictly."""

import gzip
import json
import math
import types
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

MAX_BODY_BYTES = 2 * 1024 * 1024
"""Largest compressed body that the server reads."""
MAX_DOCUMENT_BYTES = 48 * 1024 * 1024
"""Largest document that a body may inflate to."""

_Document = TypeVar("_Document")


class ProtocolError(ValueError):
    """A document does not have the agreed form; ``field`` is the path of the part that does not."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path or 'document'}: {problem}")
        self.field = path or "document"
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Limit:
    """Smallest and largest value of a number, or length of a text."""

    low: int
    high: int


Count = Annotated[int, Limit(0, 2**31 - 1)]
Positive = Annotated[int, Limit(1, 2**31 - 1)]
Sequence = Annotated[int, Limit(0, 2**53)]
Name = Annotated[str, Limit(0, 400)]
Short = Annotated[str, Limit(0, 64)]
Text = Annotated[str, Limit(0, 1024)]
Json = Mapping[str, Any]


def canonical_json(document: Mapping[str, object]) -> bytes:
    """Return the one byte string that signer and verifier agree on: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode(document: Any) -> bytes:
    """Return a document's body: JSON in gzip."""
    text = json.dumps(dump(document), separators=(",", ":"), ensure_ascii=False).encode()
    return gzip.compress(text, compresslevel=6, mtime=0)


def inflate(body: bytes) -> bytes:
    """Return what a gzip body holds; raise ProtocolError when it is damaged or inflates to too much."""
    machine = zlib.decompressobj(wbits=31)
    try:
        text = machine.decompress(body, MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise ProtocolError("", "is not valid gzip") from error
    if machine.unconsumed_tail:
        raise ProtocolError("", f"inflates to more than {MAX_DOCUMENT_BYTES} bytes")
    if not machine.eof:
        raise ProtocolError("", "is cut short")
    return text


def instant(moment: datetime) -> str:
    """Return the wire's form of an instant: UTC with milliseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump(document: Any) -> dict[str, Any]:
    """Return a document as JSON values, without the fields that hold their default."""
    answer = {}
    for each in fields(document):
        value = getattr(document, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if value != default or default is MISSING:
            answer[each.name] = _plain(value)
    return answer


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    if is_dataclass(value):
        return dump(value)
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def parse(kind: type[_Document], document: object) -> _Document:
    """Return the document as ``kind``; raise ProtocolError that names the first field of another form."""
    reader: Callable[[object, str], _Document] = _reader(cast(Any, kind))
    return reader(document, "")


@cache
def _reader(hint: Any) -> Callable[[object, str], Any]:
    """Return what reads a value of the hinted type from JSON at a path."""
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if is_dataclass(hint):
        return _document_of(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _limited(_reader(arguments[0]), arguments[1])
    if origin in (Union, types.UnionType):
        return _optional(_reader(next(each for each in arguments if each is not types.NoneType)))
    return _list_of(_reader(arguments[0])) if origin is tuple else _object_of(_reader(arguments[1]))


def _limited(read: Callable[[object, str], Any], limit: Limit) -> Callable[[object, str], Any]:
    def reader(value: object, path: str) -> Any:
        answer = read(value, path)
        size = len(answer) if isinstance(answer, str) else answer
        if not limit.low <= size <= limit.high:
            noun = "length" if isinstance(answer, str) else "value"
            raise ProtocolError(path, f"{noun} must be {limit.low} to {limit.high}, not {size}")
        return answer

    return reader


def _optional(read: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    return lambda value, path: None if value is None else read(value, path)


def _list_of(read: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    def reader(value: object, path: str) -> Any:
        if not isinstance(value, list):
            raise ProtocolError(path, "must be a list")
        return tuple(read(each, f"{path}[{index}]") for index, each in enumerate(value))

    return reader


def _object_of(read: Callable[[object, str], Any]) -> Callable[[object, str], Any]:
    def reader(value: object, path: str) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError(path, "must be an object")
        return {_read_text(key, path): read(each, f"{path}.{key}") for key, each in value.items()}

    return reader


def _document_of(kind: Any) -> Callable[[object, str], Any]:
    hints = get_type_hints(kind, include_extras=True)
    readers = {each.name: _reader(hints[each.name]) for each in fields(kind)}
    required = [
        each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING
    ]

    def reader(value: object, path: str) -> Any:
        if not isinstance(value, dict):
            raise ProtocolError(path, "must be an object")
        prefix = f"{path}." if path else ""
        missing = next((name for name in required if name not in value), None)
        if missing is not None:
            raise ProtocolError(prefix + missing, "is missing")
        return kind(
            **{name: read(value[name], prefix + name) for name, read in readers.items() if name in value}
        )

    return reader


def _read_text(value: object, path: str) -> str:
    if not isinstance(value, str) or "\x00" in value:
        raise ProtocolError(path, "must be a text without NUL")
    return value


def _read_whole(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(path, "must be a whole number")
    return value


def _read_number(value: object, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ProtocolError(path, "must be a finite number")
    return float(value)


def _read_truth(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(path, "must be true or false")
    return value


def _read_instant(value: object, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_read_text(value, path))
    except ValueError as error:
        raise ProtocolError(path, "must be an ISO 8601 instant") from error
    if moment.tzinfo is None:
        raise ProtocolError(path, "must name its time zone")
    return moment.astimezone(UTC)


def _read_json(value: object, path: str) -> Any:
    if not isinstance(value, dict):
        raise ProtocolError(path, "must be an object")
    if "\\u0000" in json.dumps(value):
        raise ProtocolError(path, "must not contain NUL")
    return value


_SIMPLE: Mapping[Any, Callable[[object, str], Any]] = {
    str: _read_text,
    int: _read_whole,
    float: _read_number,
    bool: _read_truth,
    datetime: _read_instant,
    Json: _read_json,
}
