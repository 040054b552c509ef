"""Weeks, hours and what sleep would save; plain Python."""
