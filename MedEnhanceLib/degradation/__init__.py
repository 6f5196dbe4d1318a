"""Simulated degradation by its physics: drawn with a seed, and replayed exactly."""
