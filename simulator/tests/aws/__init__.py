"""The simulated AWS over the wire."""
