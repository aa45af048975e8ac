"""The attention browser: pick a patch, see where every layer and head looks from there.

The maps of one image go to the page once, as bytes; a click is drawn there, without the kernel. The controls that need
the model (image, part, mask, layers, heads) are ipywidgets in the same box.

Letters: B images, C channels, h x w pixels.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.models.mae import MAE
from lcmae_core.viewer.browser.controls import Controls
from lcmae_core.viewer.browser.export import MODULE, PAGE, STYLE, html_page, payload
from lcmae_core.viewer.browser.scene import Choice, Scene
from lcmae_core.viewer.browser.static import picture
from lcmae_core.viewer.browser.subject import Browsed
from lcmae_core.viewer.browser.words import HEAD_MODES, SCALES, VIEWS, Shown, check_name
from lcmae_core.viewer.figures import Picture

WIDGET = "application/vnd.jupyter.widget-view+json"


class AttentionCanvas(anywidget.AnyWidget):
    """The page side: what `draw.js`, `browser.js` and `page.js` read and write."""

    _esm = MODULE
    _css = STYLE
    page = traitlets.Unicode(PAGE).tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    locked = traitlets.Int(None, allow_none=True).tag(sync=True)
    view = traitlets.Unicode("overlay").tag(sync=True)
    scale = traitlets.Unicode("shared").tag(sync=True)
    head_mode = traitlets.Unicode("each").tag(sync=True)
    hover = traitlets.Bool(False).tag(sync=True)
    paint = traitlets.Bool(False).tag(sync=True)


class AttentionBrowser(ipywidgets.VBox):
    """Attention of one image at a time, browsable by patch, with the model's controls above it.

    model: our MAE or any timm VisionTransformer. images: normalised by ImageNet's statistics. part: "encoder" or
    "decoder" (default where there is one). layers, heads: which ones, counted from 0 (default: all). masked: whether
    the encoder sees only the visible patches. query: a patch (row * columns + column), a pair (row, column), or "CLS".
    view: "overlay" | "heat". scale: "shared" | "per map". head_mode: "each" | "mean" | "max". statistics: what turned
    predictions into pixels; "visible" or "true" patches for a norm-pix model, "pixel" for a pixel model. budget_mb:
    megabytes of maps (one byte a weight) that may go to the page.

    Traits to observe: `query` (-1 is CLS), `locked`, `view`, `scale`, `head_mode`, `hover`, and `choice`, all that the
    kernel computes from.

    Raises:
        LcmaeError: an unknown part, view, scale or head mode; an image, layer, head or query out of range; a query
            hidden from a masked encoder; no decoder; images of another shape; maps above the budget.
    """

    query = traitlets.Int(0)
    locked = traitlets.Int(None, allow_none=True)
    view = traitlets.Unicode("overlay")
    scale = traitlets.Unicode("shared")
    head_mode = traitlets.Unicode("each")
    hover = traitlets.Bool(False)
    choice = traitlets.Instance(Choice)

    def __init__(
        self,
        model: MAE | VisionTransformer,
        images: Float[Tensor, "B C h w"],
        *,
        names: Sequence[str] | None = None,
        title: str | None = None,
        part: str | None = None,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        masked: bool = False,
        ratio: float = 0.75,
        seed: int = 0,
        image: int = 0,
        query: int | tuple[int, int] | str | None = None,
        view: str = "overlay",
        scale: str = "shared",
        head_mode: str = "each",
        hover: bool = False,
        statistics: str = "visible",
        budget_mb: float = 64,
    ):
        Shown(0, None, view, scale, head_mode)  # a wrong name is said before anything is computed
        self._subject = Browsed(model, images, names=names, title=title, statistics=statistics, budget_mb=budget_mb)
        choice = Choice(
            image=image,
            part=part or self._subject.parts[-1],
            masked=masked,
            layers=None if layers is None else tuple(layers),
            heads=None if heads is None else tuple(heads),
            ratio=ratio,
            seed=seed,
        )
        self._scene = self._subject.scene(choice)
        start = self._scene.nearest_query(None) if query is None else _patch(self._scene, query)
        self._canvas = AttentionCanvas(
            scene=self._sent(), query=start, view=view, scale=scale, head_mode=head_mode, hover=hover
        )
        self._controls = Controls(self._subject, choice, self._choose, self._paint)
        super().__init__(
            children=[self._controls.box, self._canvas],
            query=start, view=view, scale=scale, head_mode=head_mode, hover=hover, choice=choice,
        )  # fmt: skip
        for name in ("query", "locked", "view", "scale", "head_mode", "hover"):
            traitlets.link((self, name), (self._canvas, name))
        self._canvas.on_msg(self._heard)

    @property
    def scene(self) -> Scene:
        """What is shown: maps as bytes, pictures, words."""
        return self._scene

    @property
    def shown(self) -> Shown:
        """How it is drawn."""
        return Shown(self.query, self.locked, self.view, self.scale, self.head_mode)

    def show(self, **changes: Any) -> None:
        """Compute another choice: image, part, masked, layers, heads, ratio, seed or hidden. Nothing changes on error.

        A new ratio or seed draws a new mask and forgets what was painted; another part starts with all its layers and
        heads. A query that cannot be one any more moves to the nearest patch that can.

        Raises:
            LcmaeError: as the constructor.
        """
        if changes.get("part", self.choice.part) != self.choice.part:
            changes = {"layers": None, "heads": None} | changes
        if {"ratio", "seed"} & set(changes):
            changes = {"hidden": None} | changes
        choice = replace(self.choice, **changes)
        self._scene = self._subject.scene(choice)
        query = self._scene.nearest_query(self.query)
        locked = None if self.locked is None else self._scene.nearest_query(self.locked)
        with self._canvas.hold_sync():  # scene and queries reach the page together
            self._canvas.scene = self._sent()
            self.query, self.locked, self.choice = query, locked, choice
        self._controls.follow(choice)

    def toggle(self, patch: int) -> None:
        """Hide a visible patch, or show a hidden one, and compute everything anew.

        Raises:
            LcmaeError: no mask is in use, no such patch, or it is the last visible or last hidden one.
        """
        if self._scene.hidden is None:
            raise LcmaeError("paint: got an encoder without a mask, expected a masked encoder or a decoder")
        if not 0 <= patch < len(self._scene.hidden):
            raise LcmaeError(f"paint: got patch {patch}, expected 0 to {len(self._scene.hidden) - 1}")
        hidden = self._scene.hidden.copy()
        hidden[patch] = not hidden[patch]
        self.show(hidden=tuple(map(bool, hidden)))

    def figure(self) -> Picture:
        """The current state as a figure."""
        return picture(self._scene, self.shown)

    def save_png(self, path: str | Path) -> Path:
        """Write the current state as a PNG and return where."""
        Path(path).write_bytes(self.figure()._repr_png_())
        return Path(path)

    def save_html(self, path: str | Path) -> Path:
        """Write one HTML file that browses the current image without kernel or network, and return where."""
        Path(path).write_text(html_page(self._scene, self.shown, self.hover), encoding="utf-8")
        return Path(path)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget for a notebook that runs, and the picture for everyone who reads it later."""
        plain = f"AttentionBrowser({self._scene.words['model']}, {self._scene.words['part']})"
        png = base64.b64encode(self.figure()._repr_png_()).decode("ascii")
        bundle: dict[str, Any] = {"text/plain": plain, "image/png": png}
        if _headless():
            return bundle
        return bundle | {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}

    def _sent(self) -> dict[str, Any]:
        """Nothing where nobody can click: stored widget state would make the notebook as large as the maps."""
        return {} if _headless() else payload(self._scene)

    def _choose(self, **changes: Any) -> None:
        """A control was used: the error, if any, is one line beside the controls."""
        try:
            self.show(**changes)
            self._controls.say("")
        except LcmaeError as error:
            self._controls.follow(self.choice)
            self._controls.say(str(error))

    def _paint(self, on: bool) -> None:
        self._canvas.paint = on

    def _heard(self, _: Any, content: Any, __: Any) -> None:
        if content.get("kind") == "paint":
            try:
                self.toggle(int(content["patch"]))
                self._controls.say("")
            except LcmaeError as error:
                self._controls.say(str(error))

    @traitlets.validate("query")
    def _check_query(self, proposal: Any) -> int:
        self._scene.token(proposal["value"])
        return proposal["value"]

    @traitlets.validate("locked")
    def _check_locked(self, proposal: Any) -> int | None:
        if proposal["value"] is not None:
            self._scene.token(proposal["value"])
        return proposal["value"]

    @traitlets.validate("view", "scale", "head_mode")
    def _check_name(self, proposal: Any) -> str:
        name = proposal["trait"].name
        check_name(name, proposal["value"], {"view": VIEWS, "scale": SCALES, "head_mode": HEAD_MODES}[name])
        return proposal["value"]


def _headless() -> bool:
    return bool(os.environ.get("LCMAE_HEADLESS"))


def _patch(scene: Scene, query: int | tuple[int, int] | str) -> int:
    """A query as a number: patches from 0, prefix tokens from -1 down."""
    if isinstance(query, str):
        if query not in scene.prefix:
            valid = ", ".join(scene.prefix) or "none: this model has patch tokens only"
            raise LcmaeError(f"query: got {query!r}, expected a patch, (row, column), or a prefix token ({valid})")
        return -1 - scene.prefix.index(query)
    if not isinstance(query, int):
        row, col = query
        if not (0 <= row < scene.grid[0] and 0 <= col < scene.grid[1]):
            raise LcmaeError(
                f"query: got row {row}, column {col}, expected rows 0 to {scene.grid[0] - 1} "
                f"and columns 0 to {scene.grid[1] - 1}"
            )
        query = row * scene.grid[1] + col
    scene.token(query)
    return query
