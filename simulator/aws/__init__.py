"""The simulated AWS: moto's parsers and answers over the world's own machines, prices and rules."""
