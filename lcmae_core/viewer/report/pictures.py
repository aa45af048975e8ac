"""Pictures of notebooks as the page shows them: with the size that they take, cut into panels that wrap."""

import base64
import io
import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image, ImageOps

CSS_DPI = 96
NARROW = 90
"""Panels of less width, such as colour bars, stay with the panel before them (CSS pixels)."""


LOW = 0.6
"""Share of a figure's height under which a piece is cut to what is drawn in it, and stands in the middle."""
READABLE, SMALLEST = 9.05, 8
"""CSS pixels: letters below which a row of panels wraps, and below which a figure scrolls and gets no smaller."""


class Piece(NamedTuple):
    """An image with its width and height on the page in CSS pixels; None where the file does not say."""

    source: str
    width: int | None
    height: int | None


class Figure(NamedTuple):
    """A picture in one or more pieces, its caption and alternative text, and its smallest letters in CSS pixels."""

    pieces: tuple[Piece, ...]
    alt: str
    caption: str = ""
    smallest: float | None = None

    def style(self, piece: Piece) -> str:
        """How a piece flows: pieces of a row get smaller together before they wrap, and scroll before letters of
        `SMALLEST` px get smaller."""
        if not piece.width:
            return ""
        wraps, scrolls = (piece.width * min(1.0, least / (self.smallest or least)) for least in (READABLE, SMALLEST))
        limits = f"min-width: {scrolls:.0f}px; max-width: {piece.width}px"
        return f"flex: {piece.width} 1 {wraps:.1f}px; {limits}" if len(self.pieces) > 1 else limits


def figure_of(kind: str, content: str, alt: str, caption: str = "") -> Figure:
    """The figure of a notebook's output: base64 of a PNG or JPEG, or the text of an SVG."""
    if kind == "image/svg+xml":
        return Figure((_svg(content),), alt, caption)
    encoded = re.sub(r"\s", "", content)
    raw = base64.b64decode(encoded)
    try:
        with Image.open(io.BytesIO(raw)) as image:
            image.load()
    except OSError:
        return Figure((Piece(f"data:{kind};base64,{encoded}", None, None),), alt, caption)
    scale = max(1.0, float(image.info.get("dpi", (CSS_DPI,))[0]) / CSS_DPI) if kind == "image/png" else 1.0
    scale = scale if "panels" in image.info else 1.0  # other programs' PNG say the resolution of a printer
    smallest = float(image.info["text"]) if image.info.get("text") else None
    cuts = _kept_cuts(map(float, str(image.info.get("panels", "")).split()), image.width / scale)
    if not cuts:
        whole = Piece(f"data:{kind};base64,{encoded}", round(image.width / scale), round(image.height / scale))
        return Figure((whole,), alt, caption, smallest)
    ends = [0, *(round(cut * image.width) for cut in cuts), image.width]
    pieces = tuple(_piece(image, left, right, scale) for left, right in itertools.pairwise(ends))
    return Figure(pieces, alt, caption, smallest)


def _kept_cuts(cuts: Iterable[float], width: float) -> list[float]:
    kept: list[float] = []
    ends = [0.0, *cuts, 1.0]
    for before, cut, after in zip(ends, ends[1:], ends[2:]):
        if (after - cut) * width >= NARROW and (cut - before) * width >= NARROW:
            kept.append(cut)
    return kept


def _piece(image: Image.Image, left: int, right: int, scale: float) -> Piece:
    part = (image if image.mode == "P" else image.convert("RGB")).crop((left, 0, right, image.height))
    drawn = ImageOps.invert(part.convert("RGB")).getbbox()
    if drawn and drawn[3] - drawn[1] < LOW * image.height:  # a legend that wraps should not leave a hole
        part = part.crop((0, drawn[1], part.width, drawn[3]))
    buffer = io.BytesIO()
    part.save(buffer, format="png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Piece(f"data:image/png;base64,{data}", round(part.width / scale), round(part.height / scale))


def _svg(text: str) -> Piece:
    data = base64.b64encode(text.encode()).decode("ascii")
    box = re.search(r'viewBox="[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', text)
    sides = (round(float(box[1])), round(float(box[2]))) if box else (None, None)
    return Piece(f"data:image/svg+xml;base64,{data}", *sides)
