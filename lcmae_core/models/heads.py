"""How many heads a file's attention has: stated, given, or known of a published width; never guessed in silence."""

import warnings
from pathlib import Path
from typing import NamedTuple

from lcmae_core.config import LcmaeError

ENCODER_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
DECODER_HEADS = {512: 16}
"""Width -> heads of the published models; weights do not tell."""
PUBLISHED = (768, 1024, 1280)
"""Encoder widths of the public MAE models (ViT-B, L, H). Every published family has the same heads at these; at 192 and
384 DeiT, DINO and timm have 3 and 6, MAE-Lite and MoCo v3 12."""


class HeadCounts(NamedTuple):
    """What the caller said of the heads, if anything."""

    encoder: int | None
    decoder: int | None


def known_heads(part: str, width: int, given: int | None, published: bool, file: Path) -> int:
    """The heads of a part of this width: those given, else the table's, with a warning where the table may be wrong.

    Raises:
        LcmaeError: none are given and the table has none.
    """
    table = ENCODER_HEADS if part == "encoder" else DECODER_HEADS
    if given is not None:
        return given
    if width not in table:
        known = ", ".join(f"{w}: {h}" for w, h in table.items())
        raise LcmaeError(f"{part} heads: width {width} not in the table ({known}), give {part}_heads=")
    if not published:
        warnings.warn(
            f"{part} heads: {file.name} does not say them and models of width {width} differ; took {table[width]}, "
            f"which is wrong for some: give {part}_heads=",
            UserWarning,
            stacklevel=2,
        )
    return table[width]


def agree(name: str, given: int | None, stated: int, file: Path) -> int:
    """The heads that a configuration states.

    Raises:
        LcmaeError: others are given.
    """
    if given not in (None, stated):
        raise LcmaeError(f"{name}: got {given}, expected {stated}, which {str(file)!r} states")
    return stated
