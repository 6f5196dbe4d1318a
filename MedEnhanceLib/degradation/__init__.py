"""Degradation simulated by its physics: drawn with a seed, replayed exactly."""
