"""The learned predictor: neighbors → features → a small network of integers → ANS.

wavefront: where voxels lie, and in which order they are coded
features: the linear prediction of a block, and what the network sees; integers
network: features → mean, scale and shape of the voxel's distribution; integers
tables: distributions as integer frequencies
coder: blocks → bytes and back, by the compiled library
learned: which network codes a volume
tuning: the network taught on the volume that is coded
train: the networks that ship (torch)
"""
