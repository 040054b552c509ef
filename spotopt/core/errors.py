"""Errors the domain raises; each knows the HTTP status and slug it maps to."""

from collections.abc import Mapping
from typing import ClassVar


class SpotOptError(Exception):
    """Base of every expected failure: carries a message fit for the user."""

    status: ClassVar[int] = 400
    slug: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "Bad request"

    def __init__(self, detail: str, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra: Mapping[str, object] = extra


class InvalidInput(SpotOptError):
    """Some fields are not valid; ``errors`` maps a field to its messages."""

    slug, title = "invalid", "Invalid input"

    def __init__(self, detail: str, *, errors: Mapping[str, list[str]]) -> None:
        super().__init__(detail, errors=errors)


class NotAuthenticated(SpotOptError):
    """The caller did not prove who they are."""

    status, slug, title = 401, "not-authenticated", "Not signed in"


class Forbidden(SpotOptError):
    """The caller's role or plan does not allow the request."""

    status, slug, title = 403, "forbidden", "Forbidden"


class NotFound(SpotOptError):
    """The thing does not exist, or belongs to another organization."""

    status, slug, title = 404, "not-found", "Not found"


class Conflict(SpotOptError):
    """The thing's present state does not allow the request."""

    status, slug, title = 409, "conflict", "Conflict"


class GuardrailViolated(Conflict):
    """A safety limit forbids the action; nothing was changed."""

    slug, title = "guardrail-violated", "Guardrail violated"


class Gone(SpotOptError):
    """The thing existed and no longer does."""

    status, slug, title = 410, "gone", "Gone"


class TooManyRequests(SpotOptError):
    """The caller is over a rate limit; ``retry_after_seconds`` says when to try again."""

    status, slug, title = 429, "too-many-requests", "Too many requests"


class UpstreamFailed(SpotOptError):
    """AWS or Kubernetes answered with an error, or did not answer; ``code`` is theirs."""

    status, slug, title = 502, "upstream-failed", "Upstream failed"


class Throttled(UpstreamFailed):
    """An upstream API told us to slow down; the caller may retry."""

    status, slug, title = 503, "upstream-throttled", "Upstream throttled"
