"""The kinds of jobs: their options and functions."""
