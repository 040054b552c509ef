"""What the time since an agent's last heartbeat says about it."""

from datetime import datetime, timedelta
from enum import StrEnum

CONNECTED_WITHIN = timedelta(seconds=60)
STALE_AFTER = timedelta(minutes=15)
"""Age of the last report after which a page says that its numbers are old."""


class Contact(StrEnum):
    """The light beside a cluster's name."""

    NEVER = "never"
    CONNECTED = "connected"
    LOST = "lost"


def contact(last_heartbeat_at: datetime | None, now: datetime) -> Contact:
    """Return connected within 60 s of the last heartbeat, lost after that, never before the first."""
    if last_heartbeat_at is None:
        return Contact.NEVER
    return Contact.CONNECTED if now - last_heartbeat_at < CONNECTED_WITHIN else Contact.LOST


def is_stale(reported_at: datetime | None, now: datetime) -> bool:
    """Tell whether a report is too old to act on."""
    return reported_at is not None and now - reported_at > STALE_AFTER
