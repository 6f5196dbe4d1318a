"""Learning: training of all models, distillation of cohorts, evaluation.

It imports the rest of the library. Nothing of the rest imports it, but by registries.
"""
