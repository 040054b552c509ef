"""Shared by every app: errors, tenancy, money, time, queue, crypto; no models."""
