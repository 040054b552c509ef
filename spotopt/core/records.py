"""The columns that every table has: a UUID key and two instants from the one clock."""

from typing import Any
from uuid import uuid4

from django.db import models

from spotopt.core.clock import utcnow


class UpdatedAtField(models.DateTimeField[Any, Any]):
    """An instant that is set to ``utcnow()`` at every save."""

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """Stamp the row and return the stamp."""
        now = utcnow()
        setattr(model_instance, self.attname, now)
        return now


class Record(models.Model):
    """Abstract base: ``id``, ``created_at``, ``updated_at``."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    created_at = models.DateTimeField(default=utcnow, editable=False)
    updated_at = UpdatedAtField(default=utcnow, editable=False)

    class Meta:
        abstract = True
