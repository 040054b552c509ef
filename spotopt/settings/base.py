"""Settings that are the same everywhere; secrets and addresses come from the environment."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ
import structlog
from csp.constants import NONE, SELF

from spotopt.core.clock import wall_seconds

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent.parent
env = environ.Env()

SITE_URL = env("SITE_URL", default="http://127.0.0.1:8000")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.forms",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_celery_beat",
    "django_filters",
    "django_htmx",
    "django_structlog",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "pgtrigger",
    "rest_framework",
    "rest_framework_simplejwt.token_blacklist",
    "audit",
    "accounts",
    "clusters",
    "mlregistry",
    "policies",
    "hibernation",
    "agentapi",
    "spotopt",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "accounts.middleware.ProblemPages",
    "accounts.middleware.ActiveOrganization",
]

ROOT_URLCONF = "spotopt.urls"
ASGI_APPLICATION = "spotopt.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "builtins": ["spotopt.core.template_tags"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "accounts.context.frame",
            ],
        },
    }
]
FORM_RENDERER = "django.forms.renderers.TemplatesSetting"

DATABASES = {
    "default": {
        **env.db("DATABASE_URL"),
        "CONN_MAX_AGE": env.int("DATABASE_CONN_MAX_AGE", default=60),
        "CONN_HEALTH_CHECKS": True,
    }
}
WEB_THREADS = env.int("WEB_THREADS", default=16)
"""Requests that one web process serves at once, and so the database connections that it keeps."""
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env("REDIS_URL")
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
}

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "accounts.password_rules.MixedCharactersValidator"},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.BCryptSHA256PasswordHasher",
]
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "accounts:gateway"
SESSION_COOKIE_AGE = 24 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "spotopt.core.staticfiles.NpmFinder",
]
NPM_ASSETS = {
    "vendor/tabler/tabler.min.css": "@tabler/core/dist/css/tabler.min.css",
    "vendor/tabler/tabler.min.css.map": "@tabler/core/dist/css/tabler.min.css.map",
    "vendor/alpine/alpine.min.js": "@alpinejs/csp/dist/cdn.min.js",
    "vendor/idiomorph/idiomorph-ext.min.js": "idiomorph/dist/idiomorph-ext.min.js",
    "vendor/echarts/echarts.common.min.js": "echarts/dist/echarts.common.min.js",
    "vendor/inter/inter-latin-wght-normal.woff2": (
        "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"
    ),
}

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.authentication.OrganizationJWTAuthentication",
        "accounts.authentication.OrganizationSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.ReadForViewersWriteForMembers"],
    "DEFAULT_PAGINATION_CLASS": "accounts.pagination.NamedPages",
    "PAGE_SIZE": 50,
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_RATES": {"anon": "100/min", "user": "1000/min", "signup": "5/hour", "token": "10/min"},
    "DEFAULT_THROTTLE_CLASSES": [
        "rest_framework.throttling.AnonRateThrottle",
        "rest_framework.throttling.UserRateThrottle",
    ],
    "EXCEPTION_HANDLER": "spotopt.core.problems.problem_handler",
    "COERCE_DECIMAL_TO_STRING": True,
    "NUM_PROXIES": 0,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(hours=24),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "UPDATE_LAST_LOGIN": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Spotopt API",
    "DESCRIPTION": "Cut the bill of Kubernetes on AWS without an outage.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "AccountStatus": "accounts.models.Account.Status",
        "ActionStatus": "clusters.models.Action.Status",
        "AgentKeyKind": "agentapi.models.APIKey.Kind",
        "AgentStatus": "agentapi.models.AgentInstance.Status",
        "AllocationStrategy": ["lowest_price", "capacity_optimized", "balanced"],
        "CapacityType": "policies.models.NodeTemplate.CapacityType",
        "ClusterStatus": "clusters.models.Cluster.Status",
        "ExperimentTestType": "mlregistry.models.LabExperiment.TestType",
        "JobStatus": "policies.models.OptimizationJob.Status",
        "ModelStatus": "mlregistry.models.MLModel.Status",
        "PlanStatus": "policies.models.Plan.Status",
        "ScanStatus": "clusters.models.DiscoveryRun.Status",
        "StepStatus": "policies.models.PlanStep.Status",
        "TemplateStrategy": "policies.models.NodeTemplate.Strategy",
    },
}

CELERY_BROKER_URL = REDIS_URL
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 1800
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "clusters.actuate_*": {"queue": "actuation"},
    "clusters.scan_*": {"queue": "discovery"},
    "clusters.start_due_scans": {"queue": "discovery"},
    "clusters.refresh_*": {"queue": "pricing"},
    "policies.run_queued_jobs": {"queue": "default"},
    "policies.run_*": {"queue": "optimization"},
    "policies.advance_*": {"queue": "default"},
}


def every(seconds: float) -> float:
    """Return a beat period of ``seconds`` by the one clock, but at most one beat a second."""
    return max(1.0, wall_seconds(seconds))


def tick(task: str, *, seconds: float) -> dict[str, Any]:
    """Return a beat entry; a message that is not begun by the next ones is stale, and dropped."""
    period = every(seconds)
    return {"task": task, "schedule": period, "options": {"expire_seconds": max(5, int(period))}}


CELERY_BEAT_SCHEDULE = {
    "scan accounts that are due": tick("clusters.start_due_scans", seconds=300),
    "start pending AWS actions": tick("clusters.actuate_pending_actions", seconds=2),
    "expire actions and leases": tick("clusters.reap_actions", seconds=60),
    "listen for interruptions": tick("clusters.read_interruption_queues", seconds=5),
    "follow interruptions": tick("clusters.follow_interruptions", seconds=5),
    "look for machines that no record knows": tick("clusters.sweep_strays", seconds=300),
    "let groups even out their zones again": tick("clusters.release_groups", seconds=60),
    "book savings": tick("clusters.book_savings", seconds=60),
    "sample clusters": tick("clusters.sample_clusters", seconds=300),
    "refresh spot prices": tick("clusters.refresh_spot_prices", seconds=300),
    "move plans on": tick("policies.advance_plans", seconds=2),
    "open what was left closed": tick("policies.open_leftovers", seconds=60),
    "flag pools that took nodes": tick("mlregistry.flag_pools", seconds=10),
    "steer Karpenter": tick("policies.steer_all_karpenters", seconds=60),
    "answer interruptions": tick("policies.answer_all_interruptions", seconds=2),
    "run queued optimizations": tick("policies.run_queued_jobs", seconds=10),
    "keep proposals fresh": tick("policies.refresh_proposals", seconds=30),
    "announce unannounced events": tick("audit.announce_events", seconds=10),
    "mark silent agents": tick("agentapi.mark_silent_agents", seconds=30),
}

AGENT_SIGNING_KEY = env("AGENT_SIGNING_KEY")
PLATFORM_AWS_ACCOUNT_ID = env("PLATFORM_AWS_ACCOUNT_ID", default="999988887777")
AGENT_API_URL = env("AGENT_API_URL", default=SITE_URL)
IS_SIMULATED = env.bool("SPOTOPT_SIMULATED", default=False)

EMAIL_CONFIG = env.email("EMAIL_URL", default="consolemail://")
vars().update(EMAIL_CONFIG)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processor": structlog.processors.JSONRenderer(),
            "foreign_pre_chain": [
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"handlers": ["console"], "level": env("LOG_LEVEL", default="INFO")},
    "loggers": {
        "botocore": {"level": "WARNING"},
        "django_structlog": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
    },
}
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
