"""SPG: low-level dataset distillation (structure-preserving personalised generation).

Importing this needs numpy alone; what computes lies in its files.
"""
