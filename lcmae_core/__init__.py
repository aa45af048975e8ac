"""Masked autoencoders from a local contrastive perspective: models, losses, training and analyses."""

__version__ = "0.1.0"
