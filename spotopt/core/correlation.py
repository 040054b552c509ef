"""The id that ties a request's log lines, records and problem documents together."""

from structlog.contextvars import get_contextvars


def current_request_id() -> str:
    """Return the id under which the present request is logged; empty outside a request."""
    return str(get_contextvars().get("request_id", ""))[:64]
