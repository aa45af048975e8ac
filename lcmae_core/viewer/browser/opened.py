"""A picture of one's own, opened like those of a source: checked, decoded within limits, cut as held-out images are.

Letters (CONTRIBUTING.md): C channels, h x w pixels.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.data.augment import centre_boxes, normalize
from lcmae_core.data.convert import decode
from lcmae_core.data.decoders import Decoding
from lcmae_core.data.loader import shrink
from lcmae_core.data.resample import cut_one
from lcmae_core.models.inputs import PICTURES

LONGEST = 80
"""Characters of a name that are kept."""


def opened(
    content: bytes | Path, name: str, channels: int, size: tuple[int, int], most: float = 50e6
) -> Float[Tensor, "1 C h w"]:
    """The largest central part of a picture in the proportions of `size`, resized to it and normalised, as `Loader`
    gives the images of an evaluation. most: pixels that a picture may have, unless it is a JPEG, which comes reduced.

    Raises:
        LcmaeError: images of other channels than grey or colour.
        UnreadableImage: one line with the name and the reason: empty, truncated, no picture, too many pixels.
    """
    if channels not in PICTURES:
        raise LcmaeError(f"{name}: got a picture for images of {channels} channels, expected images of 1 or 3")
    picture = shrink(decode(content, name, channels, Decoding(least=2 * max(size), most=most)), size)
    (box,) = centre_boxes(torch.tensor([picture.height]), torch.tensor([picture.width]), size).tolist()
    return normalize(cut_one(picture, box, size)[None].float())


def file_name(path: str) -> str:
    """What a page calls a file as one line of plain text: the last part of a path, without control characters and marks
    that turn the reading direction, the middle of a long one left out."""
    last = path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = " ".join("".join(c if c.isprintable() else " " for c in last).split())
    if len(plain) > LONGEST:
        half = (LONGEST - 3) // 2
        plain = f"{plain[:half]}...{plain[-half:]}"
    return plain or "picture"
