"""Writes of the policies app: templates, policies, planning and execution."""
