"""Simulated damage, by its physics: each kind is drawn with a seed and replayed exactly."""
