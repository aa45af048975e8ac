"""Figures: plain arrays in, one labelled Figure out, with no pyplot state."""

from lcmae_core.viewer.figures.basic import (
    INK,
    MAP,
    Images,
    attention_row,
    bars,
    curves,
    dress,
    heat_maps,
    image_rows,
)
from lcmae_core.viewer.figures.paper import Picture

__all__ = [
    "INK", "MAP", "Images", "Picture", "attention_row", "bars", "curves", "dress", "heat_maps", "image_rows",
]  # fmt: skip
