"""The Celery application: its workers run every task, its beat starts every tick."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spotopt.settings.dev")

app = Celery("spotopt")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
