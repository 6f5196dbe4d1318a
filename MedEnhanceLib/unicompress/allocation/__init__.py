"""Coding of a whole volume in each compression mode: codec and bytes of each block.

near_lossless: lossless, and max_error
lossy: the best quality within given bytes, or the fewest bytes for a PSNR; implicit codes
"""
