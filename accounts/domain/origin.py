"""Where a request came from, for limits and for the record."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """The network side of a request; all empty for work that no request asked for."""

    ip_address: str | None = None
    user_agent: str = ""
    request_id: str = ""


NOWHERE = Origin()
