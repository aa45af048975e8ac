"""Figures, live controls and the report: arrays in, pictures out."""
