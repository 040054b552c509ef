"""The composition root: the only package that sees every app."""

from spotopt.celery import app as celery_app

__all__ = ["celery_app"]
