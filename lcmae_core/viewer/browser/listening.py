"""What the page asks of the kernel, and the answer that it always gets."""

from collections.abc import Mapping, Sequence
from typing import Any

from lcmae_core.config import LcmaeError
from lcmae_core.viewer.browser.controls import MOST_MB, asked
from lcmae_core.viewer.browser.opened import file_name


class Listener:
    """Hears the messages of an AttentionBrowser's page and answers each, so that the page knows that a kernel is there.

    paint: a patch to hide or show. choose: a control's changes. measure: S_attn of the heads. file: a piece of a
    picture; the last piece opens it.
    """

    def __init__(self, browser: Any):
        self.browser = browser
        self._arriving: tuple[str, bytearray] = ("", bytearray())

    def __call__(self, _: Any, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Do what is asked; the answer carries an error in one line, or none."""
        error = ""
        try:
            self._do(content, buffers)
        except LcmaeError as wrong:
            error = str(wrong)
        self.browser.answer({"kind": "answer", "id": content.get("id"), "error": error})

    def _do(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        kind, browser = content.get("kind"), self.browser
        if kind == "paint":
            browser.toggle(int(content["patch"]))
        elif kind == "choose":
            browser.show(**asked(content["changes"], browser.asked_of, browser.choice))
        elif kind == "measure":
            browser.measure()
        elif kind == "file":
            self._piece(content, buffers)

    def _piece(self, content: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        name, key, part = file_name(str(content["name"])), str(content["key"]), int(content["part"])
        if part == 0:
            self._arriving = key, bytearray()
        if self._arriving[0] != key:
            raise LcmaeError(f"{name}: another file came in between, choose it again")
        data = self._arriving[1]
        for piece in buffers:
            data += piece
        if len(data) > MOST_MB * 1e6:
            self._arriving = "", bytearray()
            raise LcmaeError(f"{name}: got a file of {len(data) / 1e6:.0f} MB or more, expected at most {MOST_MB}")
        if part == int(content["parts"]) - 1:
            self._arriving = "", bytearray()
            self.browser.add(bytes(data), name)
