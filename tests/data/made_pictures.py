"""Synthetic pictures and folders of them, for tests of sources and loaders."""

import atexit
import shutil
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 60, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Blurred noise: neighbouring pixels are alike, as in photographs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def png(seed: int, **more) -> bytes:
    buffer = BytesIO()
    picture(seed, **more).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(seed))
    return root


@cache
def few_pictures() -> str:
    """The source of pictures on which a run is judged in a moment: 64 to train on and 16 held out, ten classes."""
    folder = Path(tempfile.mkdtemp(prefix="few-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    names = {"train": 64, "val": 16}
    write_folder(folder, [f"{split}/{i % 10}/{i}.png" for split, count in names.items() for i in range(count)])
    return f"folder:{folder}"
