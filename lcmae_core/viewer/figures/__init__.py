"""Figures: plain arrays in, one labelled Figure out, with no pyplot state."""

from lcmae_core.viewer.figures.basic import (
    Images,
    attention_row,
    bars,
    curves,
    dress,
    heat_maps,
    image_rows,
)
from lcmae_core.viewer.figures.look import INK, MAP, SIGNED, looks, signed_colours
from lcmae_core.viewer.figures.paper import Picture

__all__ = [
    "INK", "MAP", "SIGNED", "Images", "Picture", "attention_row", "bars", "curves", "dress", "heat_maps", "image_rows",
    "looks", "signed_colours",
]  # fmt: skip
