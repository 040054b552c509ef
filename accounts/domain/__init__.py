"""Plain rules about people and accounts."""
