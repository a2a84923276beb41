"""Training: the epoch loops, checkpoints and fold-in."""
