"""How far a measure has come: every pass of an image through an encoder, forward or backward, is counted as it happens.

Letters (CONTRIBUTING.md): B images, T tokens, D width.
"""

from typing import Any

from torch import Tensor

from lcmae_core.store.progress import Bar


class Meter:
    """Counts the passes of the encoders that it watches and moves a bar by the share of the time that they stand for.

    A pass that takes longer than the mean moves the bar as much further, so that the time left which the bar works out
    from its own clock is a true one. `rate`: what the bar counts, a second of the plan.
    """

    def __init__(self, bar: Bar, rate: float = 1.0) -> None:
        self.passes, self.rate = 0, rate
        self._bar, self._planned, self._seconds, self._moved, self._begun = bar, 0, 0.0, 0, 0

    def watch(self, encoder: Any) -> None:
        """Count the passes of this encoder from now on."""
        encoder.blocks[-1].register_forward_hook(self._forward)

    def begin(self, passes: int, seconds: float) -> None:
        """A measure of so many planned passes, which stand for so many seconds, begins."""
        self._planned, self._seconds, self._moved, self._begun = passes, seconds, 0, self.passes

    def end(self) -> int:
        """It has ended; the number of its passes."""
        self._move(self._seconds)
        return self.passes - self._begun

    def _forward(self, _: Any, __: Any, tokens: Tensor) -> None:
        self._count(len(tokens))
        if tokens.requires_grad:
            tokens.register_hook(lambda gradient: self._count(len(gradient)))

    def _count(self, images: int) -> None:
        self.passes += images
        share = (self.passes - self._begun) / max(1, self._planned)
        self._move(min(1.0, share) * self._seconds)

    def _move(self, seconds: float) -> None:
        whole = round(seconds * self.rate)
        if whole > self._moved:
            self._bar.update(whole - self._moved)
            self._moved = whole
