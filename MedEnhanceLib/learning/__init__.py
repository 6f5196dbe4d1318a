"""What trainings and networks share: steps, checkpoints, precision, intensities on their scale."""
