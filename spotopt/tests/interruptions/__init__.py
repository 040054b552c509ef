"""Many spot nodes taken at once: how fast they close, what moves in time, and what replaces them."""
