"""Filters without training: denoising by block matching, deblurring, bias field."""
