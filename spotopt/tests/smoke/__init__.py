"""The whole road, driven through the public API alone and judged by the simulator's own records."""
