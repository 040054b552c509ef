"""Bases of Celery tasks: one that works inside an organization, one that sees all of them."""

from typing import Any
from uuid import UUID

from celery import Task

from spotopt.core.tenancy import tenant


class PlatformTask(Task[Any, Any]):
    """A tick that looks at every organization through ``Model.unscoped``."""

    abstract = True


TICK_SECONDS = 5
"""On the wall: a message of a tick that waited longer is dropped, for newer ones wait behind it."""


class TenantTask(Task[Any, Any]):
    """A task that must name its organization, and runs inside it."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task body with the organization's rows in view."""
        with tenant(UUID(str(kwargs["organization_id"]))):
            return super().__call__(*args, **kwargs)


class TickTask(TenantTask):
    """A tenant's share of a fast tick; a worker that fell behind skips what is stale, and catches up."""

    abstract = True
    expires = TICK_SECONDS
