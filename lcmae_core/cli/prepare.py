"""`lcmae prepare`: a folder or an archive of pictures becomes resized shards with a manifest."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcmae_core.cli.parser import Parser
from lcmae_core.config.names import printable

PACKED = (".zip", ".7z", ".rar")
SHOWN = 8
"""Pictures left out that the command names; the manifest names all."""


def add_prepare(parser: Parser) -> None:
    """Options of the command."""
    parser.add_argument("source", metavar="SOURCE", help="image folder, tar of images, or tar of one tar a class")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder of the shards, new or of the same command")
    parser.add_argument("--size", required=True, type=int, metavar="PX", help="short side; larger images are reduced")
    parser.add_argument("--quality", type=int, default=95, metavar="N", help="of JPEG, 1 to 100 (default 95)")
    parser.add_argument("--shard-images", type=int, default=1000, metavar="N", help="images a shard (default 1000)")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="of a source without splits: train")
    parser.add_argument("--jobs", type=int, metavar="N", help="images at once (default: one a processor)")
    parser.add_argument("--follow-links", action="store_true", help="take images to which links out of the folder lead")


def prepare(options: argparse.Namespace) -> int:
    """Do it, and say what came of it."""
    from lcmae_core.config import LcmaeError

    bounds = {"size": (8, 2**14), "quality": (1, 100), "shard_images": (1, 10**6), "jobs": (1, 1024)}
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise LcmaeError(f"--{name.replace('_', '-')}: got {value}, expected {low} to {high}")
    source, folder = Path(options.source.removeprefix("folder:")).expanduser(), Path(options.to).expanduser()
    for name, given in (("source", options.source.removeprefix("folder:")), ("--to", options.to)):
        if not given.strip():
            raise LcmaeError(f"{name}: got {getattr(options, name.strip('-'))!r}, expected a path")
    if source.suffix.lower() in PACKED and not source.is_dir():
        line = f"source: got {options.source!r}, which is not read, expected an image folder or a .tar: unpack it first"
        raise LcmaeError(line)
    if not source.exists():
        raise LcmaeError(f"source: got {options.source!r}, which is not there, expected an image folder or a .tar")
    if source.is_dir() and source.resolve().is_relative_to(folder.resolve()):
        raise LcmaeError(f"--to: got {options.to!r}, where the source lies, expected another folder")
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if there.is_dir() and not os.access(there, os.W_OK):
        raise LcmaeError(f"--to: got {options.to!r}, expected a folder that can be written")
    from lcmae_core.data.contents import contents_of
    from lcmae_core.data.prepare import prepare as make
    from lcmae_core.data.shard_plan import ShardRecipe

    recipe = ShardRecipe(options.size, options.quality, options.shard_images, options.split)
    contents = contents_of(str(source), follow_links=options.follow_links)
    jobs = options.jobs or min(16, os.cpu_count() or 1)
    manifest = make(contents, folder, recipe, workers=jobs)
    for line in left_out(manifest):
        print(printable(line), file=sys.stderr)
    print(made(manifest, options.to))
    return 0


def made(manifest: Mapping[str, Any], folder: str) -> str:
    """What there is now, and how to read it."""
    files = [entry for entry in manifest["files"] if entry["images"]]
    size = sum(entry["bytes"] for entry in files)
    what = (
        f"{manifest['images']:,} images in {len(files)} shards, {size / 1e6:,.1f} MB, listed in {folder}/manifest.json"
    )
    return f"{what}\nread them with: --data wds:{folder}"


def left_out(manifest: Mapping[str, Any]) -> list[str]:
    """Pictures that could not be read, with reasons, and what else the source holds: a line each."""
    bad = [one for entry in manifest["files"] for one in entry["left_out"]]
    lines = []
    if bad:
        more = f"; and {len(bad) - SHOWN} more (all are in the manifest)" if len(bad) > SHOWN else ""
        lines.append(f"left out {len(bad)} images: " + "; ".join(one["reason"] for one in bad[:SHOWN]) + more)
    return [*lines, f"passed over: {', '.join(manifest['passed_over'])}"] if manifest["passed_over"] else lines
