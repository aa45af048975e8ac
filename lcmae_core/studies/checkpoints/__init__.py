"""Checkpoints of others, and runs, measured as they are, and the claims that they can be asked."""
