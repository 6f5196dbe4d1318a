"""The learned predictor: neighbors → features → a small network of integers → ANS.

fit: the linear prediction of a block
features: what the network sees of them; integers
network: features → mean, scale and shape of the voxel's distribution; integers
tables: distributions as integer frequencies
rans: the entropy coder, many streams side by side
layout: where voxels lie, and in which order they are coded
coder, lockstep: blocks → bytes, and many blocks back at once
tuning: the network taught on the volume that is coded
samples, config, train: the networks that ship (torch)
"""
