"""A scene as the page gets it: bytes over the kernel's wire, or base64 inside one HTML file that needs no network."""

import base64
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from lcmae_core.viewer.browser.scene import Scene
from lcmae_core.viewer.browser.words import Shown
from lcmae_core.viewer.figures import MAP, SIGNED

_FOLDER = Path(__file__).parent
SCRIPTS = ("draw.js", "layout.js", "overview.js", "browser.js", "files.js", "controls.js", "page.js")
MODULE = "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
"""The page side as one ES module."""
STYLE = (_FOLDER / "browser.css").read_text(encoding="utf-8")
PAGE = (_FOLDER / "browser.html").read_text(encoding="utf-8")
"""The file that an export fills in; the page carries it along, so that it can save itself."""


def colours() -> bytes:
    """The 256 colours of the map, RGB."""
    table = matplotlib.colormaps[MAP](np.arange(256))[:, :3]
    return np.rint(table * 255).astype(np.uint8).tobytes()


def diverging() -> bytes:
    """256 colours for differences, blue over white to red, RGB."""
    table = matplotlib.colormaps[SIGNED](np.arange(256))[:, :3]
    return np.rint(table * 255).astype(np.uint8).tobytes()


def payload(scene: Scene) -> dict[str, Any]:
    """What the page needs of a scene; bytes stay bytes."""
    return {
        "grid": list(scene.grid),
        "prefix": list(scene.prefix),
        "layers": list(scene.layers),
        "heads": list(scene.heads),
        "keys": scene.keys.tolist(),
        "hidden": None if scene.hidden is None else scene.hidden.astype(int).tolist(),
        "blind": scene.blind,
        "words": scene.words,
        "lut": colours(),
        "signed": diverging(),
        "rollout": None if scene.rollout is None else scene.rollout.packed(),
        "maps": scene.rows.packed(),
        "distance": None if scene.distance is None else scene.distance.ravel().tolist(),
        "alike": None if scene.alike is None else scene.alike.ravel().tolist(),
        "pictures": [
            {
                "title": p.title,
                "notes": list(p.notes),
                "height": p.pixels.shape[0],
                "width": p.pixels.shape[1],
                "rgb": p.pixels.tobytes(),
            }
            for p in scene.pictures
        ],
    }


def html_page(
    scenes: Sequence[Scene], shown: Shown, hover: bool = False, subject: int = 0, against: int | None = None
) -> str:
    """One HTML file with code, styles and data inside: every control that needs no kernel works from disk, and the
    address carries what is shown."""
    first, *others = map(payload, scenes)
    state = {
        "query": shown.query,
        "locked": shown.locked,
        "view": shown.view,
        "scale": shown.scale,
        "head_mode": shown.head_mode,
        "overview": shown.overview,
        "hover": hover,
        "paint": False,
        "subject": subject,
        "against": against,
        "large": None,
        "scene": first,
        "others": others,
        "panel": {},
        "strip": {},
        "page": PAGE,
        "_esm": MODULE,
        "_css": STYLE,
    }
    parts = {
        "TITLE": html.escape(f"Attention browser: {scenes[subject].words['model']}"),
        "CSS": STYLE,
        "STATE": json.dumps(state, default=_base64).replace("<", "\\u003c"),
        "ESM": re.sub("^export default", "const browser =", MODULE, flags=re.M),
    }
    return fill(PAGE, parts)


def fill(template: str, parts: Mapping[str, str]) -> str:
    """Put the parts in the places marked __NAME__, in one pass: what is put in may hold such marks itself."""
    return re.sub(f"__({'|'.join(parts)})__", lambda mark: parts[mark[1]], template)


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")
