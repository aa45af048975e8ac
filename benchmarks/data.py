"""Pictures a CPU second, from the file to the crop: `python benchmarks/data.py [--images 60] [--json OUT]`.

Every setting of `image_decoder`, and decoded pictures mapped from the cache, beside torchvision's ImageFolder with
RandomResizedCrop(224), flip and ToTensor, in turns in one run, on JPEGs of 400 x 300 and 1600 x 1200 px that are
made of the embedded photographs. Times are CPU seconds of this process, which uses one thread; the median of the
rounds counts.

*worker* is what a decoding process does: it decodes, cuts and resizes; mirroring and normalising are the device's.
*cut* is the same of pictures that are decoded already, *batch* all of it on this CPU. Crops are of the same shares of
the picture (0.2 to 1) for all.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lcmae_core.config import Data
from lcmae_core.data.cache import Cache
from lcmae_core.data.loader import Loader
from lcmae_core.data.photos import photographs
from lcmae_core.data.resample import cut_many
from lcmae_core.data.sources import open_source
from lcmae_core.store.machine import provenance

SIZES = {"400x300": (400, 300), "1600x1200": (1600, 1200)}
CROP, SHARES = 224, (0.2, 1.0)
GRAIN = 3
"""Standard deviation of noise in grey levels: photographs that were enlarged are smoother than any camera's."""
AIMS = {"400x300": {"pil": 1.3, "best": 2.0}, "1600x1200": {"pil": 2.5, "best": 3.0}}
Work = Callable[[], int]
"""Reads some pictures once, and says how many."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=60, metavar="M", help="of the small kind; a fifth of the large")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of every contestant (default 7)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"sizes": {}, "crop": CROP, "scale": SHARES, "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as folder:
        for name, (width, height) in SIZES.items():
            count = options.images if width < 1000 else max(10, options.images // 5)
            root = Path(folder, name)
            kilobytes = make(root / "one", count, width, height)
            contestants = all_of(root, Path(folder, "cache"), count)
            speeds = in_turns(contestants, options.rounds)
            found["sizes"][name] = {"images": count, "kilobytes": kilobytes, "images_per_cpu_s": speeds}
            print(report(name, count, kilobytes, speeds), flush=True)
    if find_spec("simplejpeg") is None:
        found["left_out"] = {"simplejpeg": "the package is not installed"}
        print("simplejpeg: left out, the package is not installed")
    found |= {"aims": AIMS, "machine": machine()} | provenance(torch.device("cpu"))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Processor, cores, and the libraries that decode."""
    cpu = Path("/proc/cpuinfo")
    named = [line.partition(": ")[2] for line in cpu.read_text().splitlines() if line.startswith("model name")]
    libjpeg = features.version_feature("libjpeg_turbo")
    return {"processor": named[:1], "cores": os.cpu_count(), "pillow": PIL.__version__, "libjpeg_turbo": libjpeg}


def make(folder: Path, count: int, width: int, height: int) -> float:
    """So many JPEGs of quality 90; their mean size in kilobytes."""
    folder.mkdir(parents=True)
    pictures = [picture.convert("RGB") for picture in photographs().values()]
    for i in range(count):
        picture = pictures[i % len(pictures)]
        larger = max(width / picture.width, height / picture.height)
        size = [int(np.ceil(side * larger)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC).crop((0, 0, width, height))
        grain = np.random.default_rng(i).normal(0, GRAIN, (height, width, 3))
        pixels = (np.asarray(picture) + grain).round().clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.jpg", quality=90)
    return round(statistics.mean(file.stat().st_size for file in folder.iterdir()) / 1e3, 1)


def all_of(root: Path, cache: Path, count: int) -> dict[str, Work]:
    """Contestant -> its work."""
    modes = {"torchvision": "BILINEAR", "torchvision, bicubic": "BICUBIC"}
    found = {name: torchvision_of(root, transforms.InterpolationMode[mode]) for name, mode in modes.items()}
    decoders = ["pil", "exact", *(["simplejpeg"] if find_spec("simplejpeg") else [])]
    for decoder in decoders:
        loader = loader_of(root, decoder, count, device_cache_gb=0)
        found |= {f"{decoder}, worker": worker_of(loader, count), f"{decoder}, batch": batch_of(loader, count)}
    held = loader_of(root, "pil", count, cache=Cache(cache, 1e10))
    assert held.held
    return found | {"cache, cut": cut_of(held, count), "cache, batch": batch_of(held, count)}


def torchvision_of(root: Path, mode: transforms.InterpolationMode) -> Work:
    """The usual pipeline; bilinear is its default, bicubic what MAE trains with."""
    crop = transforms.RandomResizedCrop(CROP, scale=SHARES, interpolation=mode)
    pipeline = transforms.Compose([crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    pictures = ImageFolder(root, pipeline)
    return lambda: len(torch.stack([pictures[i][0] for i in range(len(pictures))]))


def loader_of(root: Path, decoder: str, count: int, **more: Any) -> Loader:
    data = Data(source=f"folder:{root}", image_size=(CROP, CROP), crop_scale=SHARES, image_decoder=decoder,
                validation_fraction=1e-6)  # fmt: skip
    split = open_source(data).train
    return Loader(split, data, seed=0, batch_size=count - 1, device="cpu", workers=0, progress=False, **more)


def worker_of(loader: Loader, count: int) -> Work:
    """What a decoding process does for a batch; other crops each time."""
    epochs = iter(range(10**6))

    def work() -> int:
        epoch = next(epochs)
        return len(loader._crops.__getitems__([(epoch, i) for i in range(count - 1)]))

    return work


def cut_of(loader: Loader, count: int) -> Work:
    """A batch cut out of pictures that are mapped from the cache, neither mirrored nor normalised."""
    epochs, canvas, index = iter(range(10**6)), loader._canvas, torch.arange(count - 1)
    assert canvas is not None

    def work() -> int:
        epoch = torch.full_like(index, next(epochs))
        ((size, boxes),) = loader._cuts.boxes(epoch, index, canvas.heights, canvas.widths)
        return len(cut_many(canvas.pixels[index], boxes, size))

    return work


def batch_of(loader: Loader, count: int) -> Work:
    """A whole batch on this CPU, mirrored and normalised."""
    steps = iter(range(10**6))
    return lambda: len(loader.batch(next(steps)).images)


def in_turns(contestants: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median pictures a CPU second; in each round everyone works once, after a first one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, work in contestants.items():
            begun = time.process_time()
            count = work()
            if turn:
                times[name].append(count / (time.process_time() - begun))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def report(name: str, count: int, kilobytes: float, speeds: dict[str, float]) -> str:
    """A table of one size."""
    base = speeds["torchvision"]
    lines = [f"{name} px, {count} JPEGs of {kilobytes:.0f} kB, crop of {CROP} px: pictures a CPU second"]
    lines += [f"  {who:<22}{speed:8.1f}{speed / base:7.2f} x torchvision" for who, speed in speeds.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
