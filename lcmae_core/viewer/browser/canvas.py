"""The page side of the browser as a widget: its traits, and the scripts and styles that draw them."""

from typing import Any

import anywidget
import traitlets

from lcmae_core.viewer.browser.export import MODULE, PAGE, STYLE


class AttentionCanvas(anywidget.AnyWidget):
    """The page side: what the scripts read and write."""

    _esm = MODULE
    _css = STYLE
    page = traitlets.Unicode(PAGE).tag(sync=True)
    scene = traitlets.Dict().tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    locked = traitlets.Int(None, allow_none=True).tag(sync=True)
    view = traitlets.Unicode("overlay").tag(sync=True)
    scale = traitlets.Unicode("shared").tag(sync=True)
    head_mode = traitlets.Unicode("each").tag(sync=True)
    overview = traitlets.Unicode("off").tag(sync=True)
    hover = traitlets.Bool(False).tag(sync=True)
    paint = traitlets.Bool(False).tag(sync=True)
    others: Any = traitlets.List().tag(sync=True)
    subject = traitlets.Int(0).tag(sync=True)
    against = traitlets.Int(None, allow_none=True).tag(sync=True)
    large = traitlets.Int(None, allow_none=True).tag(sync=True)
    panel = traitlets.Dict().tag(sync=True)
    strip = traitlets.Dict().tag(sync=True)
