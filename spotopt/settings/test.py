"""Tests: the real stores, weak hashing for speed, tasks run in place."""

from spotopt.settings.dev import *

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
CELERY_TASK_ALWAYS_EAGER = True
CELERY_TASK_EAGER_PROPAGATES = True
REST_FRAMEWORK = REST_FRAMEWORK | {
    "DEFAULT_THROTTLE_RATES": dict.fromkeys(["anon", "user", "signup", "token"], "100000/min")
}
LOGGING = LOGGING | {"root": {"handlers": [], "level": "WARNING"}}
