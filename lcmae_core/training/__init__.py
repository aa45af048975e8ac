"""Pre-training: the objective, the optimiser, and the loop that reads as one page."""
