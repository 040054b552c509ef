"""Shared by every app: errors, tenancy, time, queue, crypto; no models."""
