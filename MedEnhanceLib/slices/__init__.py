"""Thin slices from thick ones: physics, network, training, inference."""
