"""Make it impossible to query or save a tenant's rows without naming the tenant.

Code that serves an organization runs inside ``with tenant(organization_id):`` (opened by the
middleware, the API authentication, the Celery task base and the Channels consumer base). Outside
one, ``Model.objects`` raises ``TenantRequired`` as soon as SQL would run. System code that has to
see every organization says so in words: ``Model.unscoped``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NoReturn, Self, TypeVar
from uuid import UUID

from django.db import models
from django.db.models.sql import Query

_Row = TypeVar("_Row", bound=models.Model)
_current: ContextVar[UUID | None] = ContextVar("organization_id", default=None)


class TenantRequired(RuntimeError):
    """A tenant's rows were about to be read or written with no (or the wrong) tenant active."""


@contextmanager
def tenant(organization_id: UUID) -> Iterator[None]:
    """Scope every query in the block to one organization."""
    token = _current.set(organization_id)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def request_scope() -> Iterator[None]:
    """Forget, when the request ends, whatever tenant its authentication entered."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def enter_tenant(organization_id: UUID) -> None:
    """Scope the rest of the surrounding ``request_scope`` to one organization."""
    _current.set(organization_id)


def _refuse(model: type[models.Model] | None) -> NoReturn:
    name = model.__name__ if model else "?"
    raise TenantRequired(f"{name}: open `tenant(...)` first, or use `.unscoped`.")


class _RefusingQuery(Query):
    """A query that can be composed but never compiled to SQL."""

    def get_compiler(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse(self.model)

    def chain(self, klass: Any = None) -> Any:
        return _refuse(self.model) if klass is not None else super().chain()


class TenantQuerySet(models.QuerySet[_Row]):
    """The queryset behind ``Model.objects``."""

    def none(self) -> Self:
        """Return an empty queryset, which a form may hold before any tenant is known."""
        return models.QuerySet.none(type(self)(self.model, using=self.db))

    def update(self, **values: Any) -> int:
        """Update rows in place; moving them to another organization is refused."""
        if values.keys() & {"organization", "organization_id"}:
            raise TenantRequired("A row never moves to another organization.")
        return super().update(**values)

    def raw(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: raw SQL cannot be scoped."""
        _refuse(self.model)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows, unless no tenant is active."""
        if isinstance(self.query, _RefusingQuery):
            _refuse(self.model)
        return super().delete()

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[_Row]:
        """Insert rows that all belong to the active tenant."""
        rows = list(objs)
        for row in rows:
            row.assert_own_tenant()
        return super().bulk_create(rows, *args, **kwargs)


class TenantManager(models.Manager[_Row]):
    """Filter by the active tenant, or hand out a queryset that refuses to run."""

    def get_queryset(self) -> TenantQuerySet[_Row]:
        """Return the tenant's rows, lazily."""
        organization_id = _current.get()
        if organization_id is None:
            return TenantQuerySet[_Row](self.model, query=_RefusingQuery(self.model), using=self._db)
        return TenantQuerySet[_Row](self.model, using=self._db).filter(organization_id=organization_id)


class TenantModel(models.Model):
    """Base of every table that belongs to an organization."""

    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")

    objects: ClassVar[TenantManager[Self]] = TenantManager()
    unscoped: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.assert_own_tenant()
        super().save(*args, **kwargs)

    def assert_own_tenant(self) -> None:
        """Raise unless this row belongs to the active tenant."""
        if self.organization_id != _current.get():
            raise TenantRequired(f"{type(self).__name__} belongs to another organization.")


def active_organization_id() -> UUID | None:
    """Return the organization whose block we are in, if any."""
    return _current.get()
