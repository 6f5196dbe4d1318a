"""Blocks as AV1 videos.

video: voxels → stream, filter and residual, and back
av1: the encoders, and streams with and without their file
wiener: the filter that is fitted to each block
"""
