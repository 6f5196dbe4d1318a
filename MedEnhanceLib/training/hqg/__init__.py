"""Training without pairs: high-quality volumes behind a measured scanner, inverted as in use."""
