"""The profiles: for each purpose and machine one object that says all that depends on it.

What a study trains at a profile, how long, on how many seeds, what it is measured by and what that costs stands here
and nowhere else; the modules that use it read it from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lcmae_core.config.downstream import RECIPES
from lcmae_core.config.errors import LcmaeError, nearest
from lcmae_core.config.groups import Supervision
from lcmae_core.config.settings import Settings, replace

Leaves = Mapping[str, Any]
"""Leaves of the settings, or of a recipe, by name."""

PUBLISHED_AUGMENTATION: dict[str, Any] = RECIPES["scratch"].model_dump(include=set(Supervision.model_fields))
"""Leaves of the settings `Supervision` as published: what fine-tuning's `scratch` has."""
PUBLISHED_COLOURS: dict[str, Any] = {
    "jitter": 0.4, "hue": 0.1, "jitter_prob": 0.8, "grey_prob": 0.2, "blur_probs": (1.0, 0.1, 0.5),
    "solarise_prob": 0.2,
}  # fmt: skip
"""Leaves of the settings `Dino` that say how its crops are coloured, as published (Caron et al. 2021)."""


@dataclass(frozen=True)
class Theory:
    """The experiment of C19 on made-up images: steps of each MAE, seeds, fixed masks of a trained model, images to
    which the regressor is fitted, and on which R^2 is taken."""

    steps: int = 3000
    seeds: int = 5
    masks: int = 8
    fitted: int = 1000
    tested: int = 1000


@dataclass(frozen=True)
class Profile:
    """Everything that depends on the profile. Leaves are settings that override others: the defaults (`pretraining`),
    the profile's own pre-training (`ablation`, `local_contrastive`, `costly`, `short_horizon`, `units`, `dino`,
    `supervised`, `one_image`), or the published recipe (`probe`, `fine_tuning`).

    purpose, command, cost, expect: for whoever chooses one. pretraining: of the main MAE. ablation: of the rows of
    a table; local_contrastive: of those of Table 1 other than MAE's. costly: of rows whose step costs several of
    MAE's. short_horizon: the shorter of two horizons, at which collapse and attention distance are judged. units:
    an image size whose grid of patches can be cut into mask cells of up to 4 x 4 patches.
    fine_tuning_rates: base_lr among which fine-tuning's is chosen for each row, on training images of the first of
    `seeds`, and taken for its other seeds too (`training.choose`); none: that of `fine_tuning`.
    seeds: those by which claims are judged; judged_rows: whether studies leave out the rows that no claim is judged
    by. measured_at_once: whether a run is given every measure when it is trained, so that no later question needs
    it to be trained again.
    epoch: training images of its data, for the cost of runs. in_notebook: whether notebooks train it by themselves.
    long_enough: whether it trains long enough for signs and for checks of quality. stored: whether the notebooks
    come executed at it, and shipped: whether its records come with the collection.
    images: how many held-out images the measures use that train nothing. searched: how many images retrieval
    searches (C20; None: all). conflicts: how many cue-conflict images. severities: of the corruptions. ridge:
    whether the probe is fitted in closed form. decoder: number of blocks of the deep decoder.
    """

    purpose: str
    command: str
    cost: str
    expect: str
    pretraining: Leaves
    ablation: Leaves = field(default_factory=dict)
    local_contrastive: Leaves = field(default_factory=dict)
    costly: Leaves = field(default_factory=dict)
    short_horizon: Leaves = field(default_factory=dict)
    one_image: Leaves = field(default_factory=dict)
    units: Leaves = field(default_factory=dict)
    dino: Leaves = field(default_factory=dict)
    supervised: Leaves = field(default_factory=dict)
    probe: Leaves = field(default_factory=dict)
    ridge: bool = False
    fine_tuning: Leaves = field(default_factory=dict)
    fine_tuning_rates: tuple[float, ...] = ()
    theory: Theory = field(default_factory=Theory)
    seeds: tuple[int, ...] = (0, 1, 2)
    judged_rows: bool = False
    measured_at_once: bool = False
    epoch: int = 0
    in_notebook: bool = False
    long_enough: bool = True
    stored: bool = False
    shipped: bool = False
    images: int = 64
    searched: int | None = None
    conflicts: int = 1024
    severities: tuple[int, ...] = (3,)
    decoder: int = 8


SMOKE = Profile(
    purpose="the tests: quick's depth and grid, half its width, a handful of steps and images",
    command="lcmae run --profile smoke",
    cost="2 minutes on two CPU cores",
    expect="every cell runs; no number means anything",
    pretraining={
        "steps": 4, "batch_size": 8, "checkpoint_every": 2, "log_every": 1, "tensorboard": False, "progress": False,
        "width": 64, "decoder_width": 48, "projector_dim": 256, "source": "photos:160",
    },
    dino={"local_crops": 2},
    probe={"cached": True, "batch_size": 128, "steps": 20, "base_lr": 12.8},
    fine_tuning={"batch_size": 8, "steps": 4},
    theory=Theory(steps=3, seeds=1, masks=1, fitted=40, tested=20),
    in_notebook=True, long_enough=False, images=16, searched=16, conflicts=16, decoder=3,
)  # fmt: skip
QUICK = Profile(
    purpose="a first look: every figure on ten embedded photographs",
    command="lcmae run",
    cost="8 minutes on two CPU cores, once",
    expect="signs and shapes; accuracies are not judged",
    # 200 times the published rate, for 500 steps on ten photographs: by a sweep (CHANGELOG, "Learning-rate sweep")
    pretraining={"steps": 500, "batch_size": 16, "base_lr": 3.2e-2, "log_every": 10, "tensorboard": False},
    ablation={"steps": 80},  # shorter than the main run, at the same rate
    costly={"steps": 40},
    dino={"steps": 100, "base_lr": 3.2e-2, "clip_grad": 3.0, "local_crops": 4, "dino_dim": 256,
          "teacher_momentum": 0.9},
    supervised={"steps": 80, "base_lr": 3.2e-2},
    probe={"cached": True, "batch_size": 1024, "steps": 300, "base_lr": 1.6},
    # 512 images: mixed ones would teach it little; the rate is the same for every preset
    fine_tuning={"batch_size": 16, "steps": 32, "warmup": 0.1, "base_lr": 3.2e-2, "mixup": 0.0, "cutmix": 0.0},
    theory=Theory(steps=320, seeds=2, masks=3, fitted=600, tested=400),
    in_notebook=True, stored=True, images=64, searched=64, conflicts=128,
)  # fmt: skip
DESK = Profile(
    purpose="every claim judged without a GPU: Imagenette at 64 px, a micro ViT",
    command="make desk",
    cost="one to three days on two CPU cores",
    expect="verdicts by five seeds; margins below a tenth of MAE's gain stay unresolved",
    pretraining={
        "seed": 1, "batch_size": 32, "steps": None, "epochs": 30, "base_lr": 1.2e-2, "log_every": 100,
        "checkpoint_every": 500, "tensorboard": False, "source": "torchvision:Imagenette", "dino_dim": 256,
    },
    short_horizon={"epochs": 10},
    one_image={"epochs": 5},
    # MAE's rate and length, and the sizes of quick's DINO with a slower teacher for its longer training
    dino={"clip_grad": 3.0, "local_crops": 4, "dino_dim": 256, "teacher_momentum": 0.99, **PUBLISHED_COLOURS},
    supervised=PUBLISHED_AUGMENTATION,
    ridge=True,  # LARS would take more minutes than the features
    # a tenth of the labels, where pre-training matters most and a run takes minutes; of augmentation crop, flip and
    # mixup alone; drop path, smoothing and layer decay as published
    fine_tuning={
        "batch_size": 32, "epochs": 100, "base_lr": 8e-3, "label_share": 0.1, "warmup": 0.1, "rand_augment": None,
        "erase": 0.0, "cutmix": 0.0,
    },
    # at batch 32 rates of 3e-4, 1e-3 and 3e-3, around quick's 2e-3 and the 1e-3 with which small ViTs are trained
    fine_tuning_rates=(2.5e-3, 8e-3, 2.5e-2),
    seeds=(1, 2, 3, 4, 5),  # its pilots were run with 0
    judged_rows=True,  # two cores have days for what decides, and for no control
    measured_at_once=True, epoch=9469, shipped=True, images=512,
)  # fmt: skip
LAB = Profile(
    purpose="the claims at the paper's 14 x 14 grid: ViT-Ti, Imagenette at 112 px",
    command="make lab DATA=parquet:...",
    cost="about three GPU-hours for three seeds (planned, not measured)",
    expect="verdicts by three seeds",
    pretraining={
        "image_size": 112, "patch_size": 8, "width": 192, "depth": 12, "heads": 3,
        "decoder_width": 192, "decoder_heads": 6,
        "batch_size": 256, "steps": None, "epochs": 100, "base_lr": 1e-3, "precision": "bf16", "compile": True,
        "log_every": 50, "checkpoint_every": 1000, "workers": 8, "source": "parquet:data/imagenette-128",
        "local_size": 48, "dino_dim": 4096, "dino_hidden": 1024, "dino_bottleneck": 256,
    },
    one_image={"epochs": 5},
    units={"image_size": 128},  # 16 x 16 patches
    # the published DINO and DeiT rates, AdamW (0.9, 0.999); DINO's rising weight decay (0.04 to 0.4) is a constant 0.1
    dino={"base_lr": 5e-4, "clip_grad": 3.0, "weight_decay": 0.1, "beta2": 0.999, **PUBLISHED_COLOURS},
    supervised=PUBLISHED_AUGMENTATION,
    probe={"cached": True, "batch_size": 4096, "steps": 2000, "base_lr": 0.4, "precision": "bf16"},
    # RandAugment costs a CPU core about 3 ms an image: 100 epochs would be most of the profile's three GPU-hours
    fine_tuning={"batch_size": 256, "epochs": 30, "precision": "bf16"},
    epoch=9469, shipped=True, images=128, severities=(1, 3, 5),
)  # fmt: skip
PAPER = Profile(
    purpose="the published protocol: v2 section 5, ViT-B/16 on ImageNet-1k",
    command="lcmae study --profile paper --data folder:/data/imagenet",
    cost="hundreds of GPU-hours: see the table in the README",
    expect="the paper's own numbers, as far as its protocol is known",
    pretraining={
        "image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12,
        "decoder_width": 512, "decoder_depth": 2, "decoder_heads": 16,
        "batch_size": 1024, "steps": None, "epochs": 100, "warmup": 0.2, "base_lr": 1.5e-4, "precision": "bf16",
        "compile": True, "log_every": 50, "checkpoint_every": 1000, "workers": 8, "source": "folder:data/imagenet",
        "local_size": 96, "dino_dim": 65536, "dino_hidden": 2048, "dino_bottleneck": 256,
    },
    local_contrastive={"base_lr": 6e-4},  # v2's: four times that of its MAE
    one_image={"epochs": 5},
    units={"patch_size": 8},  # 28 x 28 patches, as HLV has
    dino={"base_lr": 5e-4, "clip_grad": 3.0, "weight_decay": 0.1, "beta2": 0.999, "warmup": 0.1, **PUBLISHED_COLOURS},
    supervised={"base_lr": 5e-4, "beta2": 0.999, "warmup": 0.05, **PUBLISHED_AUGMENTATION},
    probe={"precision": "bf16"},
    fine_tuning={"precision": "bf16"},
    epoch=1_281_167, images=256, searched=8192, severities=(1, 2, 3, 4, 5),
)  # fmt: skip

PROFILES: dict[str, Profile] = {"smoke": SMOKE, "quick": QUICK, "desk": DESK, "lab": LAB, "paper": PAPER}
"""By name, from the smallest. Rates of quick and lab: CHANGELOG, "Learning-rate sweep"; quick's references: CHANGELOG,
"References at quick". Supervised and DINO have the published augmentation from desk up; smoke and quick are too short
for it. A step of LARS changes a probe's matrix by a fixed share of its norm, the rate times the trust coefficient: a
small source needs the published peak rate (6.4, whatever the batch) and as many steps."""
DEFAULT = "quick"
"""The profile where nobody says one."""
IN_NOTEBOOK = tuple(name for name, one in PROFILES.items() if one.in_notebook)
"""Profiles whose runs a notebook trains by itself; those of the others are trained by `lcmae study`."""
TOO_SHORT = tuple(name for name, one in PROFILES.items() if not one.long_enough)
"""Profiles of which not even a sign is judged."""
SHIPPED = tuple(name for name, one in PROFILES.items() if one.shipped)
"""Profiles whose records come with the collection."""


def profile_of(name: str) -> Profile:
    """Everything about a profile.

    Raises:
        LcmaeError: there is none of that name.
    """
    if name not in PROFILES:
        raise LcmaeError(f"unknown profile {name!r}: {nearest(name, PROFILES)}")
    return PROFILES[name]


def profile(name: str) -> Settings:
    """The settings of a profile's main MAE. The sizes of DINO's head are in them too: they are read when a study asks
    for a DINO with these settings.

    Raises:
        LcmaeError: there is none of that name.
    """
    return replace(Settings(), profile_of(name).pretraining)
