"""The attention browser: pick a patch, see where every layer and head looks from there.

The maps of one image go to the page once, as bytes; a click is drawn there, without the kernel. The controls stand on
the page too; those that need the model (image, part, mask, layers, heads) ask the kernel and notice when it is gone.

Letters (CONTRIBUTING.md): B images, C channels, h x w pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.models.mae import MAE
from lcmae_core.store.runs import Run
from lcmae_core.viewer.browser.canvas import AttentionCanvas
from lcmae_core.viewer.browser.controls import panel_of, strip_of
from lcmae_core.viewer.browser.display import Displayed, headless
from lcmae_core.viewer.browser.export import html_page, payload
from lcmae_core.viewer.browser.listening import Listener
from lcmae_core.viewer.browser.opened import file_name, opened
from lcmae_core.viewer.browser.scene import Choice, Scene
from lcmae_core.viewer.browser.static import picture
from lcmae_core.viewer.browser.subject import Browsed
from lcmae_core.viewer.browser.subjects import Subjects, kept_steps
from lcmae_core.viewer.browser.words import HEAD_MODES, ORDERS, SCALES, VIEWS, Shown, check_name
from lcmae_core.viewer.figures import Picture

LINKED = ("query", "locked", "view", "scale", "head_mode", "overview", "hover", "subject", "against", "large")


class AttentionBrowser(Displayed, ipywidgets.VBox):
    """Attention of one image at a time, browsable by patch, with the model's controls above it.

    others: more models by title, before the same images and the same mask: `subject` says which is shown (0: `model`),
    `against` which beside it, with a map of the differences. `AttentionBrowser.of_run` has the kept steps of a run.

    model: our MAE or any timm VisionTransformer. images: normalised by ImageNet's statistics. part: "encoder" or
    "decoder" (default where there is one). layers, heads: which ones, counted from 0 (default: all). masked: whether
    the encoder sees only the visible patches. query: a patch (row * columns + column), a pair (row, column), or "CLS".
    view: "overlay" | "heat". scale: "shared" | "per map". head_mode: "each" | "mean" | "max" |
    "rollout" (what has reached a token through all layers so far; values and MLPs are not in it). overview: "off" |
    "layers" | "distance" | "similarity": all heads as tiles, in order or sorted by attention distance or by S_attn of
    the first images. statistics: what turned predictions into pixels; "visible" or "true" patches for a norm-pix model,
    "pixel" for a pixel model.
    budget_mb: megabytes of maps (one byte a weight) that may go to the page, of all models together.

    Traits to observe: `query` (-1 is CLS), `locked`, `view`, `scale`, `head_mode`, `overview`, `hover`, and `choice`,
    all that the kernel computes from.

    Raises:
        LcmaeError: an unknown part, view, scale or head mode; an image, layer, head, query or subject out of range;
            other models on another grid; a query hidden from a masked encoder; no decoder; images of another shape;
            maps above the budget.
    """

    query = traitlets.Int(0)
    locked = traitlets.Int(None, allow_none=True)
    view = traitlets.Unicode("overlay")
    scale = traitlets.Unicode("shared")
    head_mode = traitlets.Unicode("each")
    overview = traitlets.Unicode("off")
    hover = traitlets.Bool(False)
    subject = traitlets.Int(0)
    against = traitlets.Int(None, allow_none=True)
    large = traitlets.Int(None, allow_none=True)
    choice = traitlets.Instance(Choice)

    def __init__(
        self,
        model: MAE | VisionTransformer,
        images: Float[Tensor, "B C h w"],
        *,
        others: Mapping[str, MAE | VisionTransformer] | None = None,
        subject: int = 0,
        against: int | None = None,
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
        overview: str = "off",
        hover: bool = False,
        statistics: str = "visible",
        budget_mb: float = 64,
    ):
        Shown(0, None, view, scale, head_mode, overview)  # a wrong name is said before anything is computed
        share = budget_mb / (1 + len(others or {}))
        self._subject = Browsed(model, images, names=names, title=title, statistics=statistics, budget_mb=share)
        self._subjects = Subjects(self._subject, others or {})
        choice = Choice(
            image=image,
            part=part or self._subjects.parts[-1],
            masked=masked,
            layers=None if layers is None else tuple(layers),
            heads=None if heads is None else tuple(heads),
            ratio=ratio,
            seed=seed,
        )
        self._check_overview(overview)
        self._scenes = self._subjects.scenes(choice, overview == "similarity")
        self._check_mode(head_mode)
        for name, index in (("subject", subject), ("against", against)):
            self._check_index(name, index)
        start = self._scenes[0].nearest_query(None) if query is None else self._scenes[0].patch(query)
        look = {"query": start, "view": view, "scale": scale, "head_mode": head_mode, "overview": overview,
                "hover": hover, "subject": subject, "against": against}  # fmt: skip
        strip = {} if headless() else strip_of(self._subject)
        self._canvas = AttentionCanvas(**self._sent(choice), strip=strip, **look)
        # last: traits are checked against the scenes as they are set
        super().__init__(children=[self._canvas], choice=choice, **look)
        for name in LINKED:
            traitlets.link((self, name), (self._canvas, name))  # this is what users observe, that what the page has
        self._canvas.on_msg(Listener(self))
        self.observe(lambda _: self.measure(), "overview")

    @classmethod
    def of_run(cls, run: Run, images: Float[Tensor, "B C h w"], **chosen: Any) -> "AttentionBrowser":
        """The kept steps of a run, the last one shown beside the untrained model; the slider goes through them.

        Raises:
            LcmaeError: the run keeps no step, or is not of an MAE; and as the constructor.
        """
        (title, first), *others = kept_steps(run).items()
        look = {"subject": len(others), "against": 0 if others else None}
        return cls(first, images, title=title, others=dict(others), **look | chosen)

    @property
    def scene(self) -> Scene:
        """What is shown: maps as bytes, pictures, words."""
        return self._scenes[self.subject]

    @property
    def beside(self) -> Scene | None:
        """What is shown beside it."""
        return None if self.against is None else self._scenes[self.against]

    @property
    def shown(self) -> Shown:
        """How it is drawn."""
        return Shown(self.query, self.locked, self.view, self.scale, self.head_mode, self.overview)

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
        self._scenes = self._subjects.scenes(choice, self.overview == "similarity")
        query = self.scene.nearest_query(self.query)
        locked = None if self.locked is None else self.scene.nearest_query(self.locked)
        with self._canvas.hold_sync():  # scene and queries reach the page together
            for name, sent in self._sent(choice).items():
                setattr(self._canvas, name, sent)
            self.query, self.locked, self.choice = query, locked, choice

    def add(self, picture: bytes | str | Path, name: str | None = None) -> None:
        """Open a picture of one's own (a file or its content), cut it as held-out images are, and show it.

        Raises:
            LcmaeError: one line with the name and the reason: no picture, too many pixels, images of no colours.
        """
        content = picture if isinstance(picture, bytes) else Path(picture)
        shown_name = file_name(name or (content.name if isinstance(content, Path) else "picture"))
        images = self._subject.images
        self._subjects.add(opened(content, shown_name, images.shape[1], tuple(images.shape[2:])), shown_name)  # type: ignore[arg-type]
        if not headless():
            self._canvas.strip = strip_of(self._subject)
        self.show(image=len(self._subject.images) - 1)

    @property
    def asked_of(self) -> Browsed:
        """The model that says which layers and heads there are to choose."""
        return self._subject

    def answer(self, message: dict[str, Any]) -> None:
        """Send a message to the page."""
        self._canvas.send(message)

    def measure(self) -> None:
        """Compute S_attn of every head, once for a mask, where the overview is sorted by it."""
        if self.overview != "similarity" or self.scene.alike is not None:
            return
        self._scenes = self._subjects.with_similarities(self._scenes, self.choice)
        with self._canvas.hold_sync():
            for name, sent in self._sent(self.choice).items():
                setattr(self._canvas, name, sent)

    def toggle(self, patch: int) -> None:
        """Hide a visible patch, or show a hidden one, and compute everything anew.

        Raises:
            LcmaeError: no mask is in use, no such patch, or it is the last visible or last hidden one.
        """
        if self.scene.hidden is None:
            raise LcmaeError("paint: got an encoder without a mask, expected a masked encoder or a decoder")
        if not 0 <= patch < len(self.scene.hidden):
            raise LcmaeError(f"paint: got patch {patch}, expected 0 to {len(self.scene.hidden) - 1}")
        hidden = self.scene.hidden.copy()
        hidden[patch] = not hidden[patch]
        self.show(hidden=tuple(map(bool, hidden)))  # a choice is frozen and compared, which arrays are not

    def figure(self) -> Picture:
        """The current state as a figure."""
        return picture(self.scene, self.shown, self.beside)

    def save_png(self, path: str | Path) -> Path:
        """Write the current state as a PNG and return where."""
        Path(path).write_bytes(self.figure()._repr_png_())
        return Path(path)

    def save_html(self, path: str | Path) -> Path:
        """Write one HTML file that browses the current image without kernel or network, and return where."""
        scenes = self._scenes
        if len(self._subject.images) > 1:  # no kernel will be there to compute it
            scenes = self._subjects.with_similarities(scenes, self.choice)
        Path(path).write_text(html_page(scenes, self.shown, self.hover, self.subject, self.against), encoding="utf-8")
        return Path(path)

    def _sent(self, choice: Choice) -> dict[str, Any]:
        """Nothing where nobody can click: stored widget state would make the notebook as large as the maps."""
        if headless():
            return {"scene": {}, "others": [], "panel": {}}
        first, *others = map(payload, self._scenes)
        return {"scene": first, "others": others, "panel": panel_of(self._subjects, choice)}

    def _check_mode(self, mode: str) -> None:
        if mode == "rollout" and any(scene.rollout is None for scene in self._scenes):
            raise LcmaeError("head_mode: got 'rollout', whose maps of all layers are above budget_mb, expected another")

    def _check_overview(self, order: str) -> None:
        if order == "similarity" and len(self._subject.images) < 2:
            raise LcmaeError("overview: got 'similarity' with one image, expected two or more, whose maps are compared")

    def _check_index(self, name: str, index: int | None) -> None:
        if index is not None and not 0 <= index < len(self._scenes):
            raise LcmaeError(f"{name}: got {index}, expected 0 to {len(self._scenes) - 1}, one of the models")

    @traitlets.validate("query")
    def _check_query(self, proposal: Any) -> int:
        self.scene.token(proposal["value"])
        return proposal["value"]

    @traitlets.validate("locked")
    def _check_locked(self, proposal: Any) -> int | None:
        if proposal["value"] is not None:
            self.scene.token(proposal["value"])
        return proposal["value"]

    @traitlets.validate("view", "scale", "head_mode", "overview")
    def _check_name(self, proposal: Any) -> str:
        name = proposal["trait"].name
        valid = {"view": VIEWS, "scale": SCALES, "head_mode": HEAD_MODES, "overview": ORDERS}
        check_name(name, proposal["value"], valid[name])
        # "similarity" and "rollout" are values of one trait each, so each check may look at all four
        self._check_overview(proposal["value"])
        self._check_mode(proposal["value"])
        return proposal["value"]

    @traitlets.validate("subject", "against")
    def _check_subject(self, proposal: Any) -> int | None:
        self._check_index(proposal["trait"].name, proposal["value"])
        return proposal["value"]
