from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from clusters.services.market import load_reference_data


def _lines():
    out = StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("doctor", stdout=out)
    return {line[4:].split(":")[0]: line for line in out.getvalue().splitlines()}, str(failure.value)


def test_given_no_worker_and_no_catalogue_when_examined_then_each_says_what_to_do(db):
    lines, verdict = _lines()

    assert lines["PostgreSQL"].startswith("ok")
    assert lines["Redis"].startswith("ok")
    assert "Run `manage.py prepare`" in lines["reference data"]
    assert "nobody serves actuation" in lines["workers"]
    assert verdict == "2 of 5 checks failed."


def test_given_a_catalogue_when_examined_then_only_the_workers_are_missing(db):
    load_reference_data()

    lines, verdict = _lines()

    assert lines["reference data"].startswith("ok")
    assert verdict == "1 of 5 checks failed."


def test_given_a_dead_redis_when_examined_then_it_is_named(db, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    lines, _ = _lines()

    assert lines["Redis"].startswith("BAD")
