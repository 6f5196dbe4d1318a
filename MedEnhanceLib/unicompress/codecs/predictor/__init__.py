"""The learned predictor: neighbors → features → a small network of integers → ANS.

wavefront: where voxels lie, and in which order they are coded
features: the linear prediction of a block, and the network's input; integers
integer_network: features → mean, scale and shape of the voxel's distribution; integers
tables: distributions as integer frequencies
coder: blocks → bytes and back, by the compiled library
learned: which network codes a volume
tuning: trains a network further on the volume that is coded
pretraining: trains the networks that ship
"""
