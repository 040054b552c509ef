"""Plain rules of the record."""
