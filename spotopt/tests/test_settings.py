import base64
import os
import subprocess
import sys

import pytest
from django.conf import settings

SAFE = {
    "SECRET_KEY": "k3J9x" * 12,
    "AGENT_SIGNING_KEY": base64.b64encode(bytes(range(32))).decode(),
    "ALLOWED_HOSTS": "app.spotopt.test",
    "SITE_URL": "https://app.spotopt.test",
    "DATABASE_URL": "postgres://spotopt@db.spotopt.test/spotopt",
    "REDIS_URL": "redis://redis.spotopt.test/0",
}
PRINT = """
from spotopt.settings import prod
print(prod.DEBUG, prod.SECURE_SSL_REDIRECT, prod.SESSION_COOKIE_SECURE, prod.CSRF_COOKIE_SECURE,
      prod.SESSION_COOKIE_HTTPONLY, prod.SECURE_HSTS_SECONDS >= 31536000)
"""


def _start(**changes):
    """Read the production settings in a fresh interpreter; None takes a variable away."""
    given = {name: value for name, value in {**SAFE, **changes}.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", PRINT],
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "spotopt.settings.prod", **given},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_given_safe_values_when_production_starts_then_everything_is_shut():
    started = _start()

    assert started.stdout.split() == ["False", "True", "True", "True", "True", "True"], started.stderr


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"SECRET_KEY": None}, "SECRET_KEY"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"SECRET_KEY": "not-for-production" * 4}, "SECRET_KEY"),
        ({"AGENT_SIGNING_KEY": None}, "AGENT_SIGNING_KEY"),
        ({"AGENT_SIGNING_KEY": "no base64!"}, "AGENT_SIGNING_KEY"),
        ({"AGENT_SIGNING_KEY": base64.b64encode(bytes(16)).decode()}, "AGENT_SIGNING_KEY"),
        ({"AGENT_SIGNING_KEY": base64.b64encode(bytes(32)).decode()}, "AGENT_SIGNING_KEY"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
        ({"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS"),
        ({"SITE_URL": "http://app.spotopt.test"}, "SITE_URL"),
        ({"SPOTOPT_SIMULATED": "true"}, "AWS"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}, "AWS"),
        ({"DATABASE_URL": None}, "DATABASE_URL"),
        ({"REDIS_URL": None}, "REDIS_URL"),
    ],
)
def test_given_an_insecure_value_when_production_starts_then_it_refuses_and_names_it(changes, complaint):
    refused = _start(**changes)

    assert refused.returncode != 0
    assert "ImproperlyConfigured" in refused.stderr
    assert complaint in refused.stderr.strip().splitlines()[-1]


def test_given_a_page_when_served_then_its_headers_forbid_what_it_does_not_need(db, client):
    answer = client.get("/login")

    policy = dict(
        directive.strip().split(" ", 1) for directive in answer["Content-Security-Policy"].split(";")
    )
    assert answer.status_code == 200
    assert {policy[name] for name in ("default-src", "script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy["object-src"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"


def test_given_a_sign_in_when_the_cookie_is_set_then_scripts_and_other_sites_cannot_use_it(alice, client):
    client.post("/login", {"email": alice.email, "password": "Correct-horse-9"})

    cookie = client.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert settings.SESSION_COOKIE_AGE <= 24 * 3600
