"""Settings of the downstream evaluations: the linear probes, fine-tuning, and their published recipes.

They are classes of their own beside `Settings`: data, encoder, seed and runtime of an evaluation come from `Settings`,
everything else from the recipe, and digests of pre-training runs know nothing of them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lcmae_core.config.errors import LcmaeError, nearest, one_line
from lcmae_core.config.groups import Group, Range, one_length
from lcmae_core.config.names import todays

Penalties = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]


class AnyRecipe(Group):
    """How an encoder is judged. `kind` names it in the folders of evaluations."""

    kind: ClassVar[str]


class Recipe(AnyRecipe):
    """What every evaluation that trains step by step has: length, batch, rate, crops."""

    batch_size: int = Field(1024, gt=1, description="images an optimiser step")
    steps: int | None = Field(None, gt=0, description="optimiser steps (or give epochs)")
    epochs: float | None = Field(100, gt=0, description="passes over the training images (or give steps)")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with a linearly growing rate")
    base_lr: float = Field(1e-3, gt=0, description="rate at batch 256; the rate used is base_lr * batch_size / 256")
    min_lr: float = Field(0.0, ge=0, description="rate at the end of the half cosine, as it is")
    crop_scale: Range = Field((0.08, 1.0), description="area of a random crop, as a share of the photograph")
    crop_ratio: Range = Field((0.75, 4 / 3), description="aspect ratio (width / height) of a random crop")
    flip: bool = Field(True, description="mirror half of the crops")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="autocast of the encoder's forward pass")

    @property
    def lr(self) -> float:
        """Peak learning rate by the linear scaling rule."""
        return self.base_lr * self.batch_size / 256

    def total(self, images: int) -> int:
        """Optimiser steps for that many training images."""
        return self.steps or max(1, round((self.epochs or 0) * images / self.batch_size))

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"steps, epochs: got {self.steps}, {self.epochs}, expected exactly one of them")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale: got {self.crop_scale}, expected 0 < low <= high <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio: got {self.crop_ratio}, expected 0 < low <= high")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: got {self.min_lr}, expected at most the peak rate {self.lr}")
        return self


class LinearProbe(Recipe):
    """A linear classifier on a frozen encoder; the defaults are the public MAE recipe (slow path)."""

    kind: ClassVar[str] = "probe"
    batch_size: int = Field(16384, gt=1, description="images an optimiser step")
    epochs: float | None = Field(90, gt=0, description="passes over the training images (or give steps)")
    warmup: float = Field(10 / 90, ge=0, lt=1, description="share of the steps with a linearly growing rate")
    base_lr: float = Field(0.1, gt=0, description="rate at batch 256; the rate used is base_lr * batch_size / 256")
    cached: bool = Field(False, description="encode whole images once (fast) instead of a random crop at each visit")
    token: Literal["cls", "mean"] = Field("cls", description="feature of an image: CLS token or mean of the patches")
    momentum: float = Field(0.9, ge=0, lt=1, description="of LARS")
    probe_decay: float = Field(0.0, ge=0, description="weight decay of the classifier")
    trust: float = Field(0.001, gt=0, description="trust coefficient of LARS, on the matrix alone")


class RidgeProbe(AnyRecipe):
    """A linear classifier on a frozen encoder in closed form: ridge regression of one-hot labels on standardised
    features of whole images, its penalty chosen by cross-validation inside the training images."""

    kind: ClassVar[str] = "ridge"
    token: Literal["cls", "mean"] = Field("mean", description="feature of an image: CLS token or mean of the patches")
    folds: int = Field(
        5, ge=2, description="parts of the training images, drawn from the seed, that choose the penalty"
    )
    penalties: Penalties = Field(
        tuple(10.0**power for power in range(-2, 6)), min_length=1, description="weights of the squared norm to try"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="autocast of the encoder's forward pass")


HELD = 0.2
"""Share of the training images that `held_fifth` keeps out of training."""


class FineTune(Recipe):
    """All weights trained on labels; the defaults are v2's values in the public MAE recipe (layer decay [open])."""

    kind: ClassVar[str] = "finetune"
    min_lr: float = Field(1e-6, ge=0, description="rate at the end of the half cosine, as it is")
    accum_steps: int = Field(1, gt=0, description="micro-batches a step; divides batch_size")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second decay")
    weight_decay: float = Field(0.05, ge=0, description="decoupled; none on 1-D parameters, CLS and positions")
    layer_decay: float = Field(0.75, gt=0, le=1, description="rate of a block relative to the next one's [open]")
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the last block; linear from 0")
    rand_augment: str | None = Field("rand-m9-mstd0.5-inc1", description="timm's RandAugment; none without")
    erase: float = Field(0.25, ge=0, le=1, description="probability of random erasing, by pixel noise")
    mixup: float = Field(0.8, ge=0, description="alpha of mixup; 0 turns it off")
    cutmix: float = Field(1.0, ge=0, description="alpha of CutMix; 0 turns it off")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing")
    head_std: float = Field(2e-5, gt=0, description="deviation of the head's first weights")
    label_share: float = Field(1.0, gt=0, le=1, description="share of each class's training images that is used")
    held_fifth: bool = Field(
        False, description="judge on a fifth of the training images, kept out of training: to choose a rate"
    )
    clip_grad: float | None = Field(None, gt=0, description="largest gradient norm")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of averaged weights, which are then judged")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accum_steps:
            raise ValueError(f"accum_steps: got {self.accum_steps}, expected a divisor of batch_size {self.batch_size}")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(f"batch_size: got {self.batch_size}, expected an even number (mixup pairs the images)")
        if self.rand_augment is not None and not self.rand_augment.startswith("rand"):
            raise ValueError(f"rand_augment: got {self.rand_augment!r}, expected timm's form 'rand-m9-mstd0.5-inc1'")
        return self


RECIPES: dict[str, FineTune] = {
    "v2": FineTune(),
    "mae": FineTune(base_lr=5e-4, layer_decay=0.65),
    "scratch": FineTune(layer_decay=1.0),
    "anchor": FineTune(epochs=10),
}
"""Fine-tuning as published. v2: its base_lr 1e-3 with the MAE paper's layer decay. mae: the public MAE code, ViT-B.
scratch: v2's recipe for an untrained encoder, all layers at one rate. anchor (ours): v2's, ten epochs of all labels,
whatever share of them a profile's fine-tuning has, to tell how far its results carry."""

R = TypeVar("R", bound=AnyRecipe)


def vary(recipe: R, changes: Mapping[str, Any] | None = None, /, **more: Any) -> R:
    """A copy of a recipe with settings changed by name; steps and epochs take each other back.

    Raises:
        LcmaeError: unknown name (with the nearest valid one), or a value out of its range.
    """
    changes, names = one_length(todays({**(changes or {}), **more})), type(recipe).model_fields
    if unknown := [name for name in changes if name not in names]:
        raise LcmaeError(f"unknown setting {unknown[0]!r} (= {changes[unknown[0]]!r}): {nearest(unknown[0], names)}")
    return parse_recipe(type(recipe), recipe.model_dump(by_alias=False) | changes)


def parse_recipe(kind: type[R], tree: Mapping[str, Any]) -> R:
    """A recipe from plain data, with one-line errors."""
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        raise one_line(error, kind.model_fields) from None
