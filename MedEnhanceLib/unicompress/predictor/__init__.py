"""The learned predictor: neighbours → features → a small network of integers → ANS.

contexts: neighbours of a voxel, and how a block is padded with what is known already
features: what the network sees of them; integers
network: features → mean, scale and shape of the voxel's distribution; integers
tables: distributions as integer frequencies
rans: the entropy coder, many streams side by side
coder: blocks ↔ bytes
tuning: the network taught on the volume that is coded
train: the networks that ship (torch)
"""
