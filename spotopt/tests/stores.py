"""A pytest plugin that starts PostgreSQL and Redis before Django reads its settings."""

import atexit
import os
from pathlib import Path

from spotopt.management.embedded import EmbeddedPostgres, database_url, free_port, start_redis

_ROOT = Path(__file__).resolve().parent.parent.parent / ".spotopt" / "test"

if "DATABASE_URL" not in os.environ:
    _postgres = EmbeddedPostgres(_ROOT / "postgres", stops_with_last_user=True)
    os.environ["DATABASE_URL"] = database_url(_postgres.ensure_running(), f"spotopt_{os.getpid()}")
if "REDIS_URL" not in os.environ:
    _port = free_port()
    _redis = start_redis(_ROOT / f"redis-{os.getpid()}", _port)
    atexit.register(_redis.wait)
    atexit.register(_redis.kill)
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{_port}/0"

_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker.startswith("gw"):  # emptying one worker's cache must not empty another's
    _address, _, _ = os.environ["REDIS_URL"].rpartition("/")
    os.environ["REDIS_URL"] = f"{_address}/{int(_worker.removeprefix('gw')) + 1}"
