"""The process and its machine: progress, devices, locks, packages, files that ship."""
