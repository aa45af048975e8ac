"""Patches, masks, encoder, decoders, and the masked autoencoder built from them."""
