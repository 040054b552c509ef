"""Short names for addresses."""

import re
import unicodedata

_LONGEST_SLUG = 100


def slug_of(name: str) -> str:
    """Return the name in lower-case ASCII letters, digits and single hyphens; never empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST_SLUG].strip("-") or "organization"
