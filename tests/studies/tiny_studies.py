"""Settings so small that a job of a study takes a second or so."""

from lcmae_core.config import profile, replace
from tests.data.made_pictures import few_pictures

TINY = {
    "image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
    "decoder_heads": 2, "projector_dim": 16, "batch_size": 8, "steps": 2, "snapshots": 1, "device": "cpu",
    "local_size": 16, "dino_dim": 32, "dino_hidden": 24, "dino_bottleneck": 12,
}  # fmt: skip
"""Leaves in which they depart from smoke."""
MAE = {name: value for name, value in TINY.items() if not name.startswith(("local_", "dino_"))}
"""Those that an MAE reads: what it does not read is refused when it is asked for by name."""


def tiny_settings(out, **more):
    """Smoke's settings, smaller still."""
    return replace(profile("smoke"), {**TINY, "source": few_pictures(), **more, "out": str(out)})
