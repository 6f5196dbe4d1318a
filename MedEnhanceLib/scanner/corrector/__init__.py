"""The network that corrects what the inversion of a scanner leaves: a U-Net over slices."""
