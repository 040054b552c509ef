"""The hash chain: each row's digest covers its content and the digest of the row before it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

GENESIS = "0" * 64
CONTENT = (
    "timestamp", "event", "sentence", "actor_type", "actor_id", "actor_label", "resource_type", "resource_id",
    "resource_label", "outcome", "account_id", "cluster_id", "ip_address", "user_agent", "request_id",
    "before", "after", "usd_per_hour",
)  # fmt: skip
"""What a row's hash covers: everything but its place in the chain and ``announced_at``."""


@dataclass(frozen=True, slots=True)
class Link:
    """One row as it was stored."""

    seq: int
    prev_hash: str
    row_hash: str
    content: Mapping[str, object]


def row_hash(*, seq: int, prev_hash: str, content: Mapping[str, object]) -> str:
    """Return the SHA-256 hex digest of the row at ``seq`` that follows ``prev_hash``."""
    body = json.dumps(
        {"seq": seq, "prev": prev_hash, "content": content},
        sort_keys=True,
        separators=(",", ":"),
        default=str,
    )
    return hashlib.sha256(body.encode()).hexdigest()


def first_broken(links: Iterable[Link], *, after: str = GENESIS, after_seq: int = 0) -> int | None:
    """Return the ``seq`` of the first row that is missing, moved or altered; None when all hold."""
    previous, expected = after, after_seq
    for link in links:
        expected += 1
        if link.seq != expected or link.prev_hash != previous:
            return expected
        if row_hash(seq=link.seq, prev_hash=previous, content=link.content) != link.row_hash:
            return link.seq
        previous = link.row_hash
    return None


def content_of(row: object) -> dict[str, object]:
    """Return what a row's hash covers, in the form in which it is hashed."""
    return {name: _plain(getattr(row, name)) for name in CONTENT}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    if value is None or isinstance(value, str | dict):
        return value
    return str(value)
