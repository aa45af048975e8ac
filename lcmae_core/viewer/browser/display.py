"""What a notebook shows of the browser: the widget while a kernel runs, a picture for everyone who reads it later."""

import os
from typing import Any

from lcmae_core.viewer.browser.scene import Scene
from lcmae_core.viewer.figures import Picture

WIDGET = "application/vnd.jupyter.widget-view+json"


def headless() -> bool:
    """Whether nobody is there to click."""
    return bool(os.environ.get("LCMAE_HEADLESS"))


class Displayed:
    """A widget with a figure of its current state."""

    model_id: Any

    @property
    def scene(self) -> Scene:
        """What is shown."""
        raise NotImplementedError

    def figure(self) -> Picture:
        """The current state as a figure."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The widget for a notebook that runs, and the picture for everyone who reads it later."""
        bundle, _metadata = self._still()
        return bundle if headless() else bundle | self._live()

    def _ipython_display_(self) -> None:
        """Two outputs: the picture, which stays when the kernel is gone, and the widget, which hides it till then."""
        from IPython.display import publish_display_data

        bundle, metadata = self._still()
        publish_display_data(bundle, metadata)
        if not headless():
            publish_display_data(self._live() | {"text/plain": bundle["text/plain"]})

    def _still(self) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, metadata = self.figure()._repr_mimebundle_()
        words = self.scene.words
        return {**bundle, "text/plain": f"AttentionBrowser({words['model']}, {words['part']})"}, metadata

    def _live(self) -> dict[str, Any]:
        return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}
