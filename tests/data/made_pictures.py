"""Synthetic pictures and folders of them, for tests of sources and loaders."""

import atexit
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from lcmae_core.data.splits import Split

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""How tables of the `datasets` library hold a picture."""


def picture(seed: int, width: int = 60, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Blurred noise: neighbouring pixels are alike, as in photographs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, form: str, **more) -> bytes:
    """A picture as a file of a format, with whatever Pillow is to write beside it."""
    buffer = BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


def png(seed: int, **more) -> bytes:
    return encoded(picture(seed, **more), "PNG")


def write_folder(root: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(seed))
    return root


def write_shard(file: Path, members: Mapping[str, bytes]) -> None:
    """A shard of webdataset with these members, in their order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


def names(split: Split) -> list[str]:
    """The files of a split, in its order."""
    return [split.file_name(i) for i in range(len(split))]


@cache
def few_pictures() -> str:
    """The source of pictures on which a run is judged in a moment: 64 to train on and 16 held out, ten classes."""
    folder = Path(tempfile.mkdtemp(prefix="few-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    names = {"train": 64, "val": 16}
    write_folder(folder, [f"{split}/{i % 10}/{i}.png" for split, count in names.items() for i in range(count)])
    return f"folder:{folder}"
