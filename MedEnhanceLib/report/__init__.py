"""Figures and HTML pages from volumes, JSON objects and lists, independent of any method."""
