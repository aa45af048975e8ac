"""What the page asks of the kernel (image, part, mask, layers, heads), and what its controls show.

Letters (CONTRIBUTING.md): B images.
"""

from collections.abc import Mapping
from typing import Any

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.viewer.browser.pictures import thumbnails
from lcmae_core.viewer.browser.scene import Choice, counted_from_one
from lcmae_core.viewer.browser.subject import Browsed, painted_ratio
from lcmae_core.viewer.browser.subjects import Subjects

ASKED = ("image", "part", "masked", "layers", "heads", "ratio", "seed")
"""What a control may change."""
MOST_THUMBNAILS = 256
MOST_MB = 64
"""Megabytes of a picture's file that may come from the page."""


def strip_of(subject: Browsed) -> dict[str, Any]:
    """Names of all images, and small pictures of the first ones, for the strip above the figure."""
    small = thumbnails(subject.images[:MOST_THUMBNAILS])
    return {"names": list(subject.names), "side": small.shape[1], "thumbs": small.tobytes()}


def panel_of(subjects: Subjects, choice: Choice) -> dict[str, Any]:
    """What each control shows for a choice, and whether there is a mask to be changed."""
    shown: dict[str, Any] = {"image": choice.image, "part": choice.part, "masked": choice.masked, "seed": choice.seed}
    for name, what in (("layers", "layer"), ("heads", "head")):
        chosen = getattr(choice, name)
        words = "all" if chosen is None else counted_from_one(what, chosen).partition(" ")[2]
        shown[name] = words.replace("–", "-")
    return shown | {
        "parts": list(subjects.parts),
        "file_mb": MOST_MB,
        "ratio": choice.ratio if choice.hidden is None else painted_ratio(choice.hidden),
        "painted": choice.hidden is not None,
        "mask": choice.part == "decoder" or choice.masked,
    }


def asked(changes: Mapping[str, Any], subject: Browsed, choice: Choice) -> dict[str, Any]:
    """What a control of the page asked for, as `AttentionBrowser.show` takes it.

    Raises:
        LcmaeError: no such control, a list of layers or heads that is none, or text where a number stands.
    """
    request = dict(changes)
    for name in request:
        if name not in ASKED:
            raise LcmaeError(f"control: got {name!r}, {nearest(name, ASKED)}")
    layers, heads = subject.size(request.get("part", choice.part))
    for name, count in (("layers", layers), ("heads", heads)):
        if name in request:
            request[name] = read_list(name, str(request[name]), count)
    for name, kind in (("image", int), ("seed", int), ("ratio", float), ("masked", bool)):
        if name in request:
            request[name] = _number(name, request[name], kind)
    return request


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise LcmaeError(f"{name}: got {value!r}, expected a number") from None


def read_list(what: str, words: str, count: int) -> tuple[int, ...] | None:
    """ "1-3, 8", counted from 1, as (0, 1, 2, 7); "all" or nothing is None.

    Raises:
        LcmaeError: it is no such list, or goes beyond `count`; the line counts from 1 like what was typed.
    """
    if words.strip() in ("", "all"):
        return None
    chosen: list[int] = []
    for item in words.replace("–", "-").split(","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        ends = (first, last if dash else first)
        if not all(end.isdecimal() and int(end) > 0 for end in ends):
            raise LcmaeError(f"{what}: got {words!r}, expected 'all' or a list that counts from 1, such as 1-3, 8")
        chosen.extend(range(int(ends[0]) - 1, int(ends[1])))
    if not chosen or max(chosen) >= count:
        raise LcmaeError(f"{what}: got {words!r}, expected {what} from 1 to {count}")
    return tuple(dict.fromkeys(chosen))
