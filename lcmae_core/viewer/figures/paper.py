"""A Figure that shows itself as a PNG of twice its size in pixels, which says where it may be cut into panels."""

import base64
import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import BboxBase
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DPI = 96
"""CSS pixels an inch: what a figure measures on a page."""
SCALE = 2
"""Pixels of the PNG for each of them."""
FLAT = 4096
"""Colours up to which a picture is a drawing and not a photograph."""
PAD = 0.1
"""Inches of white around what is drawn."""


class Picture(Figure):
    """A Figure that shows itself as a PNG wherever a notebook is read, without any plotting backend.

    The PNG's text chunks are `panels`, where it may be cut on a narrow page (shares of its width), and `text`, the
    size of its smallest letters in CSS pixels.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.set_dpi(SCALE * DPI)  # that of the file: letters are a little wider or narrower at another
        whole = laid_out(self)
        chunks = {"panels": " ".join(f"{at:.4f}" for at in cuts(self, whole)), "text": f"{smallest_text(self):.1f}"}
        with _layout_kept(self):
            self.savefig(
                buffer,
                format="png",
                dpi=SCALE * DPI,
                bbox_inches=whole.padded(PAD),
                facecolor="white",
                metadata=chunks,
            )
        return _packed(buffer, chunks)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """The PNG, and the size at which a notebook shows it."""
        png = self._repr_png_()
        bundle = {"image/png": base64.b64encode(png).decode("ascii"), "text/plain": repr(self)}
        return bundle, {"image/png": shown_size(png)}


def _packed(png: io.BytesIO, chunks: Mapping[str, str]) -> bytes:
    """A drawing in 256 colours, which is all but the edges of its letters, in a third of the bytes; photographs as they
    are."""
    with Image.open(png) as image:
        whole = image.convert("RGB")
    if whole.getcolors(FLAT) is None:
        return png.getvalue()
    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name, text)
    smaller = io.BytesIO()
    few = whole.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(smaller, format="png", optimize=True, dpi=(SCALE * DPI, SCALE * DPI), pnginfo=info)
    return min(smaller.getvalue(), png.getvalue(), key=len)


def shown_size(png: bytes) -> dict[str, int]:
    """Width and height in CSS pixels of a PNG that a Picture made."""
    sides = {"width": png[16:20], "height": png[20:24]}
    return {name: round(int.from_bytes(side, "big") / SCALE) for name, side in sides.items()}


def smallest_text(figure: Figure) -> float:
    """Size of the smallest letters that are drawn, in CSS pixels; 0 where there are none."""
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return min(map(float, sizes), default=0.0) * DPI / 72


def laid_out(figure: Figure) -> BboxBase:
    """Places everything (drawn, but for the pixels), and gives the box, in inches, that all of it needs."""
    figure.draw_without_rendering()
    return figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())


@contextmanager
def _layout_kept(figure: Figure) -> Iterator[None]:
    """A layout takes longer than the drawing: what is placed is not placed again."""
    engine = figure.get_layout_engine()
    figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine("none" if engine is None else engine)


def cuts(figure: Figure, whole: BboxBase) -> list[float]:
    """Where a row of panels may be cut, as shares of the width: the middles of the gaps that nothing is drawn in.

    None if panels stand above one another, whose columns belong together. The figure was laid out in the box `whole`.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    parts = [*figure.axes, *figure.legends, *figure.texts]
    boxes = [(part, box) for part in parts if part.get_visible() and (box := part.get_tightbbox(renderer)) is not None]
    columns: list[tuple[float, float, int]] = []
    for part, box in sorted(boxes, key=lambda entry: entry[1].x0):
        left, right, axes = box.x0 / figure.dpi, box.x1 / figure.dpi, int(isinstance(part, Axes))
        if columns and left <= columns[-1][1]:
            before = columns.pop()
            left, right, axes = before[0], max(before[1], right), before[2] + axes
        columns.append((left, right, axes))
    if any(axes > 1 for *_, axes in columns):
        return []
    middles = [(before[1] + after[0]) / 2 for before, after in itertools.pairwise(columns)]
    return [(middle - whole.x0 + PAD) / (whole.width + 2 * PAD) for middle in middles]
