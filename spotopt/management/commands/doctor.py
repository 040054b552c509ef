"""`manage.py doctor`: is everything here that the product needs, and does it answer?"""

from collections.abc import Callable
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from clusters.models import InstanceType, Price
from spotopt.management.runtime import WORKERS

_REPLY_SECONDS = 2.0


class Command(BaseCommand):
    """Prints one line for each check, with what to do where it fails."""

    help = "Check stores, tables, reference data, assets and workers."
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Run every check; CommandError when one failed."""
        checks: tuple[tuple[str, Callable[[], str]], ...] = (
            ("settings and assets", _settings),
            ("PostgreSQL", _tables),
            ("reference data", _reference),
            ("Redis", _redis),
            ("workers", _workers),
        )
        failed = 0
        for name, check in checks:
            problem = check()
            failed += bool(problem)
            self.stdout.write(f"{'BAD' if problem else 'ok ':4}{name}{f': {problem}' if problem else ''}")
        if failed:
            raise CommandError(f"{failed} of {len(checks)} checks failed.")


def _settings() -> str:
    serious = [message for message in run_checks() if message.is_serious()]
    return "; ".join(f"{message.msg} {message.hint or ''}".strip() for message in serious)


def _tables() -> str:
    try:
        executor = MigrationExecutor(connection)
    except DatabaseError as error:
        return f"no answer ({error}). Check DATABASE_URL."
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return f"{len(missing)} migrations are not applied. Run `manage.py prepare`." if missing else ""


def _reference() -> str:
    try:
        is_loaded = InstanceType.objects.exists() and Price.objects.exists()
    except DatabaseError:
        return "the tables cannot be read."
    return "" if is_loaded else "the instance catalogue is empty. Run `manage.py prepare`."


def _redis() -> str:
    try:
        Redis.from_url(settings.REDIS_URL, socket_timeout=_REPLY_SECONDS).ping()
    except RedisError as error:
        return f"no answer ({error}). Check REDIS_URL."
    return ""


def _workers() -> str:
    try:
        queues = current_app.control.inspect(timeout=_REPLY_SECONDS).active_queues() or {}
    except (OperationalError, RedisError):
        return "the broker does not answer."
    served = {queue["name"] for listed in queues.values() for queue in listed}
    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    unserved = (routed | {settings.CELERY_TASK_DEFAULT_QUEUE}) - served
    return f"nobody serves {', '.join(sorted(unserved))}. Start {', '.join(WORKERS)}." if unserved else ""
