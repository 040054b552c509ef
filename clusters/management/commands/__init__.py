"""Commands of the clusters app."""
