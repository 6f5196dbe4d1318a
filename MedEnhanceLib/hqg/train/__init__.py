"""Training of HQG-Net: `train` runs it from a configuration to a bundle."""

from MedEnhanceLib.hqg.train.run import train
from MedEnhanceLib.hqg.train.trainer import Trainer

__all__ = ["Trainer", "train"]
