"""Trained models: find, verify, import."""
