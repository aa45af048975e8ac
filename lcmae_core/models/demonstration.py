"""The model that comes with the package: a masked autoencoder trained long enough that its attention means something.

Its folder `demo/` has the layout of a run (weights in half precision, settings, a manifest with their sha256) and
`card.json`: data, training, and what was measured of it beside its untrained twin. `benchmarks/demo_model.py` makes it.
"""

import json
from pathlib import Path
from typing import Any

from lcmae_core.config import LcmaeError
from lcmae_core.store.checkpoint import MANIFEST
from lcmae_core.store.runs import MODEL, SETTINGS

DEMO = "demo"
"""The name by which `load_mae` and `open_model` know it."""
FOLDER = Path(__file__).with_name("demo")
CARD = "card.json"


def demo_folder() -> Path:
    """The folder of the demonstration model.

    Raises:
        LcmaeError: one of its files is missing.
    """
    missing = [name for name in (MODEL, SETTINGS, MANIFEST, CARD) if not (FOLDER / name).is_file()]
    if missing:
        raise LcmaeError(f"demo: got no {missing[0]} in {str(FOLDER)!r}, expected it whole: install lcmae_core again")
    return FOLDER


def demo_card() -> dict[str, Any]:
    """What the demonstration model is and what was measured of it.

    Raises:
        LcmaeError: it is missing or damaged.
    """
    file = demo_folder() / CARD
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise LcmaeError(
            f"demo: got {str(file)!r}, which is damaged, expected JSON: install lcmae_core again"
        ) from None
