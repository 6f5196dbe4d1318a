"""Volumes from files and back."""
