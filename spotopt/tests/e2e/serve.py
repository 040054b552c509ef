"""Serve seeded rows from a database of their own: ``python -m spotopt.tests.e2e.serve PORT [--large]``."""

import os
import shutil
import signal
import sys
from pathlib import Path

import django
import psycopg2
import uvicorn
from django.core.management import call_command

from spotopt.management.embedded import EmbeddedPostgres, database_url, free_port, start_redis

_STORES = Path(__file__).resolve().parents[3] / ".spotopt" / "test"


def main(port: int, *, is_large: bool) -> None:
    """Start stores, migrate, seed and serve until killed."""
    name = f"spotopt_e2e_{os.getpid()}"
    server = EmbeddedPostgres(_STORES / "postgres", stops_with_last_user=True).ensure_running()
    redis_port = free_port()
    directory = _STORES / f"redis-e2e-{os.getpid()}"
    redis = start_redis(directory, redis_port)
    os.environ |= {
        "DATABASE_URL": database_url(server, name),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "DJANGO_SETTINGS_MODULE": "spotopt.settings.test",
        "SITE_URL": f"http://127.0.0.1:{port}",
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again after its shutdown
    _command(server, f'CREATE DATABASE "{name}"')
    try:
        _serve(port, is_large=is_large)
    finally:
        _command(server, f'DROP DATABASE "{name}" WITH (FORCE)')
        redis.kill()
        redis.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _serve(port: int, *, is_large: bool) -> None:
    django.setup()
    from spotopt.tests.e2e.seed import seed, seed_large  # noqa: PLC0415  # models need the settings

    call_command("migrate", verbosity=0)
    seed()
    if is_large:
        seed_large()
    uvicorn.run("spotopt.asgi:application", host="127.0.0.1", port=port, log_level="warning", lifespan="off")


def _command(server: str, sql: str) -> None:
    connection = psycopg2.connect(server)
    connection.autocommit = True
    try:
        connection.cursor().execute(sql)
    finally:
        connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), is_large="--large" in sys.argv)
