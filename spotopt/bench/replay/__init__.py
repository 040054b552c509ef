"""Replaying a week of recorded spot outages under three buying policies."""
