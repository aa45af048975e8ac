"""The browser's controls that need the kernel: image, part, mask, layers, heads and paint mode, as ipywidgets."""

import html
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets

from lcmae_core.config import LcmaeError
from lcmae_core.viewer.browser.scene import Choice, counted_from_one
from lcmae_core.viewer.browser.subject import Browsed


class Controls:
    """A box of controls that call `choose(name=value)` and `paint(on)` and can be set without calling them."""

    def __init__(self, subject: Browsed, choice: Choice, choose: Callable[..., None], paint: Callable[[bool], None]):
        self._subject, self._choose, self._quiet = subject, choose, False
        self.image = ipywidgets.Dropdown(
            options=[(name, i) for i, name in enumerate(subject.names)], value=choice.image, description="image"
        )
        self.part = ipywidgets.Dropdown(options=list(subject.parts), value=choice.part, description="part")
        self.masked = ipywidgets.Checkbox(value=choice.masked, description="mask the encoder", indent=False)
        self.layers = ipywidgets.Text(description="layers", continuous_update=False, placeholder="all, or 1-3, 8")
        self.heads = ipywidgets.Text(description="heads", continuous_update=False, placeholder="all, or 1-3, 8")
        self.ratio = ipywidgets.BoundedFloatText(
            value=choice.ratio, min=0.01, max=0.99, step=0.05, description="mask ratio"
        )
        self.seed = ipywidgets.BoundedIntText(value=choice.seed, min=0, max=2**31 - 1, description="mask seed")
        self.redraw = ipywidgets.Button(description="Re-draw", tooltip="Draw another mask: the next seed")
        self.paint = ipywidgets.ToggleButton(
            description="Paint mask", tooltip="Clicking a patch (or Space at the cursor) hides or shows it"
        )
        self.message = ipywidgets.HTML()
        self._dress()
        self.follow(choice)
        self._observe(paint)
        rows = [
            [self.image, self.part, self.layers, self.heads],
            [self.masked, self.ratio, self.seed, self.redraw, self.paint],
        ]
        flow = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        self.box = ipywidgets.VBox([*(ipywidgets.HBox(row, layout=flow) for row in rows), self.message])

    def _dress(self) -> None:
        for control, width in ((self.image, "210px"), (self.part, "180px"), (self.layers, "210px"),
                               (self.heads, "210px"), (self.ratio, "160px"), (self.seed, "170px"),
                               (self.masked, "150px"), (self.redraw, "90px"), (self.paint, "110px")):  # fmt: skip
            control.layout.width = width
        for name in ("image", "part", "masked", "layers", "heads", "ratio", "seed", "redraw", "paint", "message"):
            getattr(self, name).add_class(f"lcmae-kernel-{name}")
        for control in (self.layers, self.heads):
            control.tooltip = "counted from 1: all, or such as 1-3, 8"
        for control in (self.image, self.part, self.layers, self.heads, self.ratio, self.seed):
            control.style.description_width = "initial"

    def _observe(self, paint: Callable[[bool], None]) -> None:
        for name in ("image", "part", "masked", "ratio", "seed"):
            getattr(self, name).observe(lambda change, name=name: self._changed(name, change["new"]), "value")
        for name in ("layers", "heads"):
            getattr(self, name).observe(lambda change, name=name: self._listed(name, change["new"]), "value")
        self.redraw.on_click(lambda _: self._changed("seed", self.seed.value + 1))
        self.paint.observe(lambda change: paint(change["new"]), "value")

    def _changed(self, name: str, value: Any) -> None:
        if not self._quiet:
            self._choose(**{name: value})

    def _listed(self, name: str, words: str) -> None:
        if self._quiet:
            return
        try:
            layers, heads = self._subject.size(self.part.value)
            chosen = read_list(name, words, layers if name == "layers" else heads)
        except LcmaeError as error:
            self.say(str(error))
            return
        self._choose(**{name: chosen})

    @contextmanager
    def _silence(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def follow(self, choice: Choice) -> None:
        """Show a choice without asking for it; controls that mean nothing for it are switched off."""
        with self._silence():
            for name in ("image", "part", "masked", "ratio", "seed"):
                getattr(self, name).value = getattr(choice, name)
            for name, what in (("layers", "layer"), ("heads", "head")):
                chosen = getattr(choice, name)
                said = "all" if chosen is None else counted_from_one(what, chosen).partition(" ")[2]
                getattr(self, name).value = said.replace("–", "-")
        uses = len(self._subject.parts) == 2 or choice.masked
        self.masked.disabled = choice.part == "decoder"
        self.ratio.disabled = self.seed.disabled = self.redraw.disabled = self.paint.disabled = not uses

    def say(self, line: str) -> None:
        """One line beside the controls, read out by screen readers; empty means nothing is wrong."""
        self.message.value = f'<span role="alert">{html.escape(line)}</span>' if line else ""


def read_list(what: str, words: str, count: int) -> tuple[int, ...] | None:
    """ "1-3, 8", counted from 1, as (0, 1, 2, 7); "all" or nothing is None.

    Raises:
        LcmaeError: it is no such list, or goes beyond `count`; the line counts from 1 like what was typed.
    """
    if words.strip() in ("", "all"):
        return None
    found: list[int] = []
    for item in words.replace("–", "-").split(","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isdecimal() and int(end) > 0 for end in ends):
            raise LcmaeError(f"{what}: got {words!r}, expected 'all' or a list that counts from 1, such as 1-3, 8")
        found.extend(range(int(ends[0]) - 1, int(ends[1])))
    if not found or max(found) >= count:
        raise LcmaeError(f"{what}: got {words!r}, expected {what} from 1 to {count}")
    return tuple(dict.fromkeys(found))
