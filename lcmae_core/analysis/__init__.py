"""What is measured on trained models: attention, decomposition of the loss, collapse, reconstructions, neighbours."""
