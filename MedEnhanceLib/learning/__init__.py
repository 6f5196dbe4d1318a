"""Parts that trainings and networks share: steps, checkpoints, precision, intensity scale."""
