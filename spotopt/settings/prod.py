"""Production: every secret must be given, and insecure values stop the start."""

import base64
import binascii

from django.core.exceptions import ImproperlyConfigured

from spotopt.settings.base import *

DEBUG = False
STYLEGUIDE = False
SECRET_KEY = env("SECRET_KEY")
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}


def _refuse_insecure() -> None:
    """Raise ImproperlyConfigured for the first setting that would be unsafe in production."""
    if len(SECRET_KEY) < 50 or "not-for-production" in SECRET_KEY:
        raise ImproperlyConfigured("SECRET_KEY must be at least 50 random characters.")
    try:
        signing_key = base64.b64decode(AGENT_SIGNING_KEY, validate=True)
    except binascii.Error as error:
        raise ImproperlyConfigured("AGENT_SIGNING_KEY must be base64.") from error
    if len(signing_key) != 32 or len(set(signing_key)) < 8:
        raise ImproperlyConfigured("AGENT_SIGNING_KEY must be 32 random bytes in base64.")
    if "*" in ALLOWED_HOSTS or not ALLOWED_HOSTS:
        raise ImproperlyConfigured("ALLOWED_HOSTS must name the hosts that are served.")
    if not SITE_URL.startswith("https://"):
        raise ImproperlyConfigured("SITE_URL must be an https address.")
    if IS_SIMULATED or env("AWS_ENDPOINT_URL", default=""):
        raise ImproperlyConfigured(
            "Production talks to AWS itself: unset SPOTOPT_SIMULATED and AWS_ENDPOINT_URL."
        )


_refuse_insecure()
