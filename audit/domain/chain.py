"""The hash chain: each row's digest covers its content and the digest of the row before it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

GENESIS = "0" * 64


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
