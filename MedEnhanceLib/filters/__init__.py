"""Filters without training: denoising by block matching, bias field."""
