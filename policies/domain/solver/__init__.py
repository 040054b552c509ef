"""Near-optimal vector bin packing on shapes of pods, with a proven lower bound."""
