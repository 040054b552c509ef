"""Hand work to Celery by name, only after the current transaction has committed."""

import logging
from functools import partial
from uuid import UUID

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

Argument = str | int | UUID | None


def enqueue(task: str, **kwargs: Argument) -> None:
    """Start ``task`` when the surrounding transaction commits; never if it rolls back.

    A broker that is down loses only the hurry: every task is also found by a periodic tick that looks
    at the state in PostgreSQL.
    """
    arguments = {name: str(value) if isinstance(value, UUID) else value for name, value in kwargs.items()}
    transaction.on_commit(partial(_send, task, arguments))


def _send(task: str, kwargs: dict[str, str | int | None]) -> None:
    try:
        current_app.signature(task, kwargs=kwargs).apply_async()
    except OperationalError:
        logger.warning("Broker unreachable; a tick will pick up %s.", task)
