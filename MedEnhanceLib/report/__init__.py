"""Figures and pages for people, from volumes, objects of JSON and lists; no method is known here.

figures: comparison sheets. page: index.html. enhance: the report of one enhancement.
"""
