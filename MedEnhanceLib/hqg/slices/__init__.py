"""Thin slices from thick ones: physics, network, training, inference.

Importing this needs numpy alone. `restore.enhance_slices` restores, `train.train_slices` trains.
"""

from MedEnhanceLib.hqg.config import SliceNetConfig, TrainSlicesConfig

__all__ = ["SliceNetConfig", "TrainSlicesConfig"]
