"""Stores and a simulated AWS that live as long as one measurement."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django
from django.conf import settings
from django.db import connection

from spotopt.management.embedded import EmbeddedPostgres, database_url, free_port, start_redis


@contextmanager
def scratch_stores(directory: Path) -> Iterator[None]:
    """Set Django up on an empty, migrated PostgreSQL and an empty Redis; drop both afterwards."""
    postgres = EmbeddedPostgres(directory / "postgres", stops_with_last_user=True)
    os.environ["DATABASE_URL"] = database_url(postgres.ensure_running(), f"bench_{os.getpid()}")
    port = free_port()
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{port}/0"
    os.environ["DJANGO_SETTINGS_MODULE"] = "spotopt.settings.dev"
    redis = start_redis(directory / "redis", port)
    try:
        django.setup()
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        try:
            yield
        finally:
            connection.creation.destroy_test_db(settings.DATABASES["default"]["NAME"], verbosity=0)
    finally:
        redis.kill()
        redis.wait()


@contextmanager
def simulated_aws(directory: Path, *, fleet: str) -> Iterator[str]:
    """Run a simulator with a starting fleet, make it the AWS of this process, and return its address."""
    aws_port, kube_port = free_port(), free_port()
    command = [sys.executable, "-m", "simulator", "--state", str(directory / "simulator"), "--fleet", fleet]
    command += ["--aws-port", str(aws_port), "--kube-port", str(kube_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None  # noqa: S101  # it is a pipe
            url = str(json.loads(process.stdout.readline())["aws"])
            os.environ |= {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "AKIASPOTOPTPLATFORM",
                "AWS_SECRET_ACCESS_KEY": "simulated",
            }
            yield url
        finally:
            process.terminate()
