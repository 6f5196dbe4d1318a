"""GradProm: segmentation heads beside the enhancer."""
