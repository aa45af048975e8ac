"""The experiment of claim C19 as a plan: the model of the world, the MAE, how masks are drawn, what is asked of it."""

from typing import Any, NamedTuple

from lcmae_core.analysis.recovery import Probes, Setting
from lcmae_core.config import Model, Optim
from lcmae_core.config.profiles import profile_of
from lcmae_core.data.hierarchical import Hierarchy

SETTINGS = tuple(Setting(ratio, unit) for unit in (1, 2) for ratio in (0.25, 0.5, 0.75))
"""The masks of the experiment, at every profile."""


class Experiment(NamedTuple):
    """The whole experiment: the model of the world, the MAE, its training, seeds of a notebook, and what is asked."""

    hierarchy: Hierarchy
    arch: Model
    optim: Optim
    seeds: int
    probes: Probes

    @property
    def asked(self) -> dict[str, Any]:
        """What a record of the measurement depends on beside the settings of the MAE: the world and the probes."""
        return {name: getattr(self, name).model_dump(mode="json") for name in ("hierarchy", "probes")}


Recipe = Experiment
"""Its former name."""


def recipe(profile: str) -> Experiment:
    """The experiment at a profile: a binary tree over 4 x 4 patches of 4 x 4 pixels; `lab` trains
    longer (its decay is as much less), with more seeds, masks and images to measure on.

    The weight decay is high, in all of them, because Theorem 2 is about an encoder that keeps no more than it must: a
    plain MAE of 32 numbers a token has room for all 16 pixels of its patch and, decayed as usual, keeps them.

    Raises:
        LcmaeError: an unknown profile.
    """
    length = profile_of(profile).theory
    world = Hierarchy(splits=((1, 2), (2, 1), (1, 2), (2, 1)), noise=(4, 3, 3, 3, 3), scale=(1.0, 1.0, 1.2, 1.6, 0.5))
    arch = Model(patch_size=4, width=32, depth=2, mlp_ratio=2.0, decoder_width=32, decoder_depth=1)
    decay = 3.0 * 320 / max(length.steps, 320)  # decay adds up over the steps
    optim = Optim(steps=length.steps, batch_size=32, base_lr=4e-2, weight_decay=decay)
    return Experiment(
        world, arch, optim, length.seeds, Probes(masks=length.masks, fitted=length.fitted, tested=length.tested)
    )
