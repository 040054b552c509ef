"""The pages in a real browser, against a server with seeded rows."""
