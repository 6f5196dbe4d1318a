"""Codecs of single blocks: voxels [K, J, I] → bytes and back.

lossless: constant, zstd and JPEG XL, on the unsigned integers that `integers` makes
video: AV1 with a fitted filter
predictor: lossless or bounded, by a learned predictor and an entropy coder
implicit: codes of one shared network, in layers
"""
