"""MRML nodes: voxels to and from the worker's files, their description, history and display."""
