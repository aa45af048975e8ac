"""What stays on disk: runs, their checkpoints, and the numbers that notebooks record."""
