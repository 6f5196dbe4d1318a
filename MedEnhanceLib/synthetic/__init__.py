"""Synthetic volumes: random shapes and textures, for learning without anybody's data."""

from MedEnhanceLib.synthetic.volumes import synthetic_volume as synthetic_volume
