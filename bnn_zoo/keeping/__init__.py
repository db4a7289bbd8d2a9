"""What outlasts a process: posteriors on disk, and checkpoints of a fit."""
