"""SPG: low-level data set distillation (structure-preserving personalized generation).

Importing this package and its configurations needs numpy alone.
"""
