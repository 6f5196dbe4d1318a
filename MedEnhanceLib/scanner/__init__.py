"""A scanner, measured from two pools of volumes without pairs, and inverted."""
