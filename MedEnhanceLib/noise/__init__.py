"""Noise measured in volumes and sequences: level, map, spectrum."""
