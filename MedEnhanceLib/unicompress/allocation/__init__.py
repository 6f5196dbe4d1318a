"""How a whole volume is coded for each compression mode: which codec takes which block and bytes.

near_lossless: lossless, and max_error
lossy: the best quality within given bytes, or the fewest bytes for a PSNR or SSIM; implicit codes
"""
