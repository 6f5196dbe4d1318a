"""Shared parts of trainings and networks: steps, checkpoints, precision, intensity scale."""
