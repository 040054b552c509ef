"""One machine, for development and demonstration; `manage.py up` supplies the addresses."""

import base64
import hashlib
import os

_UNSET = "not-for-production: for one machine, behind no door"
os.environ.setdefault("DATABASE_URL", "postgres://postgres@localhost/spotopt")
os.environ.setdefault("REDIS_URL", "redis://127.0.0.1:6379/0")
os.environ.setdefault("SECRET_KEY", _UNSET)
os.environ.setdefault(
    "AGENT_SIGNING_KEY", base64.b64encode(hashlib.sha256(_UNSET.encode()).digest()).decode()
)

from spotopt.settings.base import *  # noqa: E402

SECRET_KEY = env("SECRET_KEY")
DEBUG = env.bool("DEBUG", default=False)
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = True
STYLEGUIDE = True
