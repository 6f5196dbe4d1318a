"""Training of the network that restores thin slices."""
