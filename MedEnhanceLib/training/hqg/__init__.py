"""HQG-Net: training of enhancers and of thin slices, on clean targets with simulated noise."""
