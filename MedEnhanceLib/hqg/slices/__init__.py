"""Thin slices from thick ones: physics, network, training, inference.

Importing this needs numpy alone. `restore.restore_slices` restores, `train.train_slices` trains.
"""

from MedEnhanceLib.hqg.slices.config import RestoreSlicesConfig, SliceNetConfig, TrainSlicesConfig

__all__ = ["RestoreSlicesConfig", "SliceNetConfig", "TrainSlicesConfig"]
