"""UniCompress: volumes in a container that never loses data."""
