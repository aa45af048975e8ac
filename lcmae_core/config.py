"""Frozen, strictly validated settings, the profiles, and the digest that names a run.

Settings are grouped for the reader and flat for the user: every leaf name is unique, so that
`replace(settings, mask_ratio=0.5)` and `lcmae train -p mask_ratio=0.5` need no path. Only `runtime` affects no result.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

PROFILES = ("smoke", "quick", "lab", "paper")


class LcmaeError(ValueError):
    """An error of the user's making, said in one line: what, got, expected, nearest valid name."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The tail of an error line: the nearest valid name, or all of them when nothing is near."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(valid)}"


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


Size = Annotated[tuple[int, int], BeforeValidator(_pair)]
Range = Annotated[tuple[float, float], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]


class Group(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent coercion of strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Data(Group):
    """Where pictures come from, and how they are cropped."""

    source: str = Field("photos", description="source string: photos | folder: | parquet: | wds: | hf: | torchvision:")
    image_size: Size = Field((64, 64), description="crop height and width in pixels; one number means square")
    channels: Literal[1, 3] = Field(3, description="1 reads grey, 3 reads colour")
    crop_scale: Range = Field((0.2, 1.0), description="area of a random crop, as a share of the photograph")
    crop_ratio: Range = Field((0.75, 4 / 3), description="aspect ratio (width / height) of a random crop")
    flip: bool = Field(True, description="mirror half of the crops")
    on_unreadable: Literal["stop", "skip"] = Field("stop", description="what to do with a file that is no image")
    min_side: int = Field(8, gt=0, description="images with a shorter side, in pixels, count as unreadable")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="held out where a source has no validation split")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high), most in (("crop_scale", self.crop_scale, 1), ("crop_ratio", self.crop_ratio, 100)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{name}: got {(low, high)}, expected 0 < low <= high <= {most}")
        return self


class Model(Group):
    """Architecture of encoder, decoder and projector."""

    patch_size: int = Field(8, gt=0, description="side of a patch in pixels")
    width: int = Field(128, gt=0, description="encoder width D")
    depth: int = Field(4, gt=0, description="encoder blocks")
    heads: int = Field(4, gt=0, description="encoder heads")
    mlp_ratio: float = Field(4.0, gt=0, description="hidden width of the MLPs, as a multiple of the width")
    decoder: Literal["transformer"] = Field("transformer", description="kind of decoder")
    decoder_width: int = Field(96, gt=0, description="decoder width D'")
    decoder_depth: int = Field(2, ge=0, description="decoder blocks")
    decoder_heads: int = Field(4, gt=0, description="decoder heads")
    projector_dim: int = Field(1024, gt=0, description="width of v, the output of the projector p (v2 section 5)")
    project_from: Literal["pred", "tokens"] = Field(
        "pred", description="input of p: h(x, m) or decoder features [open]"
    )


class Masking(Group):
    """How much is hidden, and in which units."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of hidden patches")
    mask_unit: int = Field(1, gt=0, description="side of a mask cell in patches")


class Loss(Group):
    """Which terms are optimised, with which weights and targets."""

    reconstruction: float = Field(1.0, ge=0, description="weight of Eq. 1")
    cross_view: float = Field(0.0, ge=0, description="weight of Eq. 5; any weight means two views")
    in_view: float = Field(0.0, ge=0, description="weight of Eq. 6")
    reduction: Literal["mean", "sum"] = Field("mean", description="mean over active terms, or sum per image")
    norm_pix: bool = Field(True, description="regress patches normalised by their own mean and variance")
    in_view_pixels: Literal["imagenet", "raw", "centred", "norm_pix"] = Field(
        "imagenet",
        description="the x of Eq. 6: normalised ImageNet-normalised, [0, 1], per-image centred, or per patch [open]",
    )
    views: Literal[1, 2] | None = Field(None, description="masked views of an image; by default 2 if cross_view else 1")

    @property
    def num_views(self) -> int:
        """Views that a step encodes: what was asked for, else two exactly when Eq. 5 needs them."""
        return self.views or (2 if self.cross_view > 0 else 1)

    @property
    def needs_projector(self) -> bool:
        """Whether any term is computed on v = p(h(x, m))."""
        return self.cross_view > 0 or self.in_view > 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.views == 1 and self.cross_view > 0:
            raise ValueError("views: got 1, expected 2, because cross_view (Eq. 5) compares two views")
        if self.reconstruction == self.cross_view == self.in_view == 0:
            raise ValueError("reconstruction, cross_view, in_view: got 0, 0, 0, expected at least one weight above 0")
        return self


class Optim(Group):
    """Length, batch and schedule of the training."""

    batch_size: int = Field(64, gt=0, description="images an optimiser step, over all devices")
    accumulate: int = Field(1, gt=0, description="micro-batches a step; divides batch_size; means are per micro-batch")
    steps: int | None = Field(150, gt=0, description="optimiser steps (or give epochs)")
    epochs: float | None = Field(None, gt=0, description="passes over the training images (or give steps)")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps with a linearly growing rate")
    base_lr: float = Field(4e-3, gt=0, description="rate at batch 256; the rate used is base_lr * batch_size / 256")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second decay")
    weight_decay: float = Field(0.05, ge=0, description="decoupled; none on 1-D parameters")
    clip_grad: float | None = Field(None, gt=0, description="largest gradient norm")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="autocast of the forward pass")

    @property
    def lr(self) -> float:
        """Peak learning rate by the linear scaling rule."""
        return self.base_lr * self.batch_size / 256

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"steps, epochs: got {self.steps}, {self.epochs}, expected exactly one of them")
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: got {self.accumulate}, expected a divisor of batch_size {self.batch_size}")
        return self


class Runtime(Group):
    """What must not affect results: where, how fast and how loudly."""

    device: str = Field("auto", description="auto | cuda | cuda:1 | mps | cpu")
    out: str = Field("outputs", description="folder of the runs")
    workers: int = Field(2, ge=0, description="decoding processes of sources too large to hold in memory")
    hold_gb: float = Field(4.0, ge=0, description="sources up to this size are held on the device as uint8")
    compile: bool = Field(False, description="torch.compile the model")
    log_every: int = Field(10, gt=0, description="steps between log lines")
    checkpoint_every: int = Field(100, gt=0, description="steps between resumable checkpoints")
    snapshots: int = Field(8, ge=0, description="weights kept on the way, at logarithmic steps, for analysis")
    tensorboard: bool = Field(True, description="also write TensorBoard events")
    progress: bool = Field(True, description="show a progress bar")


class Settings(Group):
    """All settings of one pre-training run."""

    seed: int = Field(0, ge=0, description="of weights, order, crops and masks")
    data: Data = Data()
    model: Model = Model()
    masking: Masking = Masking()
    loss: Loss = Loss()
    optim: Optim = Optim()
    runtime: Runtime = Runtime()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        h, w = self.data.image_size
        return h // self.model.patch_size, w // self.model.patch_size

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    @model_validator(mode="after")
    def _check(self) -> Self:
        patch, unit = self.model.patch_size, self.masking.mask_unit
        if any(side < patch for side in self.data.image_size):
            raise ValueError(f"image_size: got {self.data.image_size}, expected at least one patch of {patch} px")
        if any(side % patch for side in self.data.image_size):
            raise ValueError(f"patch_size: got {patch}, expected a divisor of image_size {self.data.image_size}")
        if any(side % unit for side in self.grid):
            raise ValueError(f"mask_unit: got {unit}, expected a divisor of the {self.grid[0]}x{self.grid[1]} grid")
        cells = self.num_patches // unit**2
        if not 0 < int(cells * (1 - self.masking.mask_ratio)) < cells:
            raise ValueError(
                f"mask_ratio: got {self.masking.mask_ratio}, expected a ratio that leaves "
                f"a visible and a hidden one of {cells} cells"
            )
        for width, heads, names in (
            (self.model.width, self.model.heads, "heads: encoder width"),
            (self.model.decoder_width, self.model.decoder_heads, "decoder_heads: decoder width"),
        ):
            if width % heads:
                raise ValueError(f"{names} {width} does not divide by {heads} heads, expected a divisor")
            if width % 4:
                raise ValueError(
                    f"{names.split(': ')[1]}: got {width}, expected a multiple of 4 (2-D sin-cos positions)"
                )
        return self


GROUPS: dict[str, type[Group]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}
"""Group name -> class."""

LEAVES: dict[str, str] = {leaf: group for group, cls in GROUPS.items() for leaf in cls.model_fields} | {"seed": ""}
"""Leaf name -> name of its group ('' for the top)."""


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be ", "")
    leaf = next((str(part) for part in reversed(first["loc"]) if part in LEAVES), "")
    return message if first["type"] == "value_error" else f"{leaf}: got {first['input']!r}, expected {message}"


def replace(settings: Settings, changes: Mapping[str, Any] | None = None, /, **more: Any) -> Settings:
    """A copy of `settings` with leaves changed by name, validated as a whole; steps and epochs take each other back.

    Raises:
        LcmaeError: unknown name (with the nearest valid one), or a value out of its range.
    """
    tree, changes = settings.model_dump(), {**(changes or {}), **more}
    if one := {"steps", "epochs"} & {name for name, value in changes.items() if value is not None}:
        changes = dict.fromkeys({"steps", "epochs"} - one) | changes
    for name, value in changes.items():
        if name not in LEAVES:
            raise LcmaeError(f"unknown setting {name!r} (= {value!r}): {nearest(name, LEAVES)}")
        (tree[LEAVES[name]] if LEAVES[name] else tree)[name] = value
    return parse(tree)


def parse(tree: Mapping[str, Any]) -> Settings:
    """Settings from nested plain data (a `settings.json`), with one-line errors."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise LcmaeError(_one_line(error)) from None


def digest(settings: Settings, data_identity: str) -> str:
    """Ten hex digits that name everything that affects results.

    Only departures from the defaults are hashed, so a setting added later keeps old runs valid. For the same reason a
    default that affects results is never changed: profiles say what they need. The source counts by what it holds
    (`data_identity`), not by where it lies.
    """
    tree = settings.model_dump(mode="json", exclude={"runtime": True, "data": {"source"}}, exclude_defaults=True)
    departures = {group: leaves for group, leaves in tree.items() if leaves != {}}
    text = json.dumps([departures, data_identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def profile(name: str) -> Settings:
    """The plain-MAE settings of a profile; studies change leaves from here.

    smoke: quick's shapes, a handful of steps. quick: two CPU cores, minutes. lab: one GPU, ViT-Ti, the paper's 14x14
    grid. paper: v2 section 5, ViT-B/16 on ImageNet-1k.
    """
    if name not in PROFILES:
        raise LcmaeError(f"unknown profile {name!r}: {nearest(name, PROFILES)}")
    return replace(Settings(), _PROFILE_LEAVES[name])


_PROFILE_LEAVES: dict[str, dict[str, Any]] = {
    "smoke": {
        "steps": 4, "batch_size": 8, "checkpoint_every": 2, "log_every": 1, "tensorboard": False, "progress": False,
    },
    "quick": {"steps": 500, "batch_size": 16, "base_lr": 3.2e-2, "log_every": 10, "tensorboard": False},
    "lab": {
        "image_size": 112, "patch_size": 8, "width": 192, "depth": 12, "heads": 3,
        "decoder_width": 192, "decoder_heads": 6,
        "batch_size": 256, "steps": None, "epochs": 100, "base_lr": 1e-3, "precision": "bf16", "compile": True,
        "log_every": 50, "checkpoint_every": 1000, "source": "parquet:data/imagenette-128",
    },
    "paper": {
        "image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12,
        "decoder_width": 512, "decoder_depth": 2, "decoder_heads": 16,
        "batch_size": 1024, "steps": None, "epochs": 100, "warmup": 0.2, "base_lr": 1.5e-4, "precision": "bf16",
        "compile": True, "log_every": 50, "checkpoint_every": 1000, "workers": 8, "source": "folder:data/imagenet",
    },
}  # fmt: skip
"""Leaves in which a profile departs from the defaults. Rates of quick and lab: CHANGELOG, "Learning-rate sweep"."""
