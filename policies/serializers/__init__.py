"""Shapes of what the policies API takes and gives."""
