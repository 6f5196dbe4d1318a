"""Training of the set network: clean targets, crops with simulated noise, losses, steps, export."""

from MedEnhanceLib.training.hqg.run import train

__all__ = ["train"]
