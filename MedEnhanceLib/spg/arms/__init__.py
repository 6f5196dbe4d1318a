"""The ways to a small training set that a distillation is compared with, and the comparison."""
