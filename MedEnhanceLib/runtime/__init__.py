"""What runs: progress and cancelling, devices, the machine, locks, packages, shipped files."""
