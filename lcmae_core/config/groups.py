"""The groups of settings: every field with its bounds and what it means."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from lcmae_core.config.names import on_disk, printable


def _pair(value: Any) -> Any:
    return _of(2, "a number, or two: height and width")((value, value) if isinstance(value, int) else value)


def _of(count: int, words: str) -> Callable[[Any], Any]:
    """A list as a tuple, which must have so many numbers; pydantic's own line speaks of a Tuple after validation."""

    def checked(value: Any) -> Any:
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, tuple) and len(value) != count:
            raise PydanticCustomError("length", "{words}", {"words": words})
        return value

    return checked


Size = Annotated[tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], BeforeValidator(_pair)]
Range = Annotated[tuple[float, float], BeforeValidator(_of(2, "two numbers, low and high"))]

WIDEST, DEEPEST, LONGEST = 2**16, 1000, 10**9
"""Bounds of widths, of blocks one behind the other, and of steps: no model is near them, a slip of the keyboard is."""

Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[tuple[Share, Share, Share], BeforeValidator(_of(3, "three numbers"))]


def _odd(value: int) -> int:
    if value < 1 or value % 2 == 0:
        raise PydanticCustomError("odd", "an odd number of patches, from 1")
    return value


Source = Annotated[str, BeforeValidator(lambda v: printable(v) if isinstance(v, str) else v)]
"""A source string whose path may be any bytes."""
Odd = Annotated[int, AfterValidator(_odd)]


def one_length(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes, with `epochs` cleared where `steps` is set and the other way round: a training has one length."""
    given = {"steps", "epochs"} & {name for name, value in changes.items() if value is not None}
    return dict.fromkeys({"steps", "epochs"} - given) | changes if given else changes


class Group(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent coercion of strings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, alias_generator=on_disk,
        validate_by_name=True, validate_by_alias=True, serialize_by_alias=True, loc_by_alias=False,
    )  # fmt: skip


class Data(Group):
    """Where pictures come from, and how they are cropped."""

    source: Source = Field(
        "photos", description="source string: photos | folder: | parquet: | wds: | hf: | torchvision:"
    )
    image_size: Size = Field((64, 64), description="crop height and width in pixels; one number means square")
    channels: Literal[1, 3] = Field(3, description="1 reads grey, 3 reads colour")
    crop_scale: Range = Field((0.2, 1.0), description="area of a random crop, as a share of the photograph")
    crop_ratio: Range = Field((0.75, 4 / 3), description="aspect ratio (width / height) of a random crop")
    flip: bool = Field(True, description="mirror half of the crops")
    on_unreadable: Literal["stop", "skip"] = Field("stop", description="what to do with a file that is no image")
    image_decoder: Literal["pil", "exact", "simplejpeg"] = Field(
        "pil", description="pil reduces large JPEGs as it decodes, exact never does, simplejpeg is a faster library"
    )
    max_megapixels: float = Field(50.0, gt=0, description="larger images count as unreadable, unless JPEG reduces them")
    min_side: int = Field(8, gt=0, description="images with a shorter side, in pixels, count as unreadable")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="held out where a source has no validation split")
    train_images: int | None = Field(
        None,
        gt=0,
        description="train on the first n images alone, in epochs as long as without (v2 Table A.1) [open]",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, (low, high), most in (("crop_scale", self.crop_scale, 1), ("crop_ratio", self.crop_ratio, 100)):
            if not 0 < low <= high <= most:
                raise ValueError(f"{name}: got {(low, high)}, expected 0 < low <= high <= {most}")
        return self


class Model(Group):
    """Architecture of encoder, decoder and projector."""

    patch_size: int = Field(8, gt=0, description="side of a patch in pixels")
    width: int = Field(128, gt=0, le=WIDEST, description="encoder width D")
    depth: int = Field(4, gt=0, le=DEEPEST, description="encoder blocks")
    heads: int = Field(4, gt=0, description="encoder heads")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="hidden width of the MLPs, as a multiple of the width")
    decoder: Literal["transformer", "convolution", "average"] = Field("transformer", description="a row of v2 Table 2")
    decoder_width: int = Field(96, gt=0, le=WIDEST, description="decoder width D'")
    decoder_depth: int = Field(2, ge=0, le=DEEPEST, description="decoder blocks")
    decoder_heads: int = Field(4, gt=0, description="decoder heads")
    decoder_kernel: Odd = Field(5, description="side in patches of what a convolution or an average sees")
    decoder_sigma: float = Field(1.0, gt=0, description="standard deviation of a Gaussian average, in patches")
    projector_dim: int = Field(1024, gt=0, le=WIDEST, description="width of v = p(h(x, m)) (v2 section 5)")
    project_from: Literal["pred", "tokens"] = Field(
        "pred", description="input of p: h(x, m) or decoder features [open]"
    )


class Masking(Group):
    """How much is hidden, and in which units."""

    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of hidden patches")
    mask_unit: int = Field(1, gt=0, description="side of a mask cell in patches")
    erased: bool = Field(
        False, description="hidden patches keep their tokens and lose their pixels: set to the mean colour"
    )


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


class Dino(Group):
    """What DINO needs beside the encoder: its crops, its head, its teacher. Only `method="dino"` reads it."""

    global_scale: Range = Field((0.4, 1.0), description="area of a global crop, as a share of the photograph")
    local_crops: int = Field(8, ge=0, le=1000, description="local crops of an image, seen by the student alone")
    local_size: Size = Field((32, 32), description="local crop height and width in pixels; one number means square")
    local_scale: Range = Field((0.05, 0.4), description="area of a local crop, as a share of the photograph")
    jitter: float = Field(0.4, ge=0, le=1, description="change of brightness, contrast and (half of it) saturation")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest turn of the hue, as a share of the circle")
    jitter_prob: float = Field(1.0, ge=0, le=1, description="probability of jitter and hue together")
    grey_prob: float = Field(0.0, ge=0, le=1, description="probability of greyscale")
    blur_probs: Shares = Field(
        (0.0, 0.0, 0.0), description="probabilities of Gaussian blur: first global crop, second, local crops"
    )
    solarise_prob: float = Field(0.0, ge=0, le=1, description="probability that the second global crop is solarised")
    dino_dim: int = Field(1024, gt=1, le=2**20, description="prototypes: width of the head's output")
    dino_hidden: int = Field(256, gt=0, le=WIDEST, description="width of the head's two hidden layers")
    dino_bottleneck: int = Field(64, gt=0, le=WIDEST, description="width before the prototypes")
    student_temp: float = Field(0.1, gt=0, description="temperature of the student's softmax")
    teacher_temp: float = Field(0.07, gt=0, description="temperature of the teacher's softmax")
    teacher_temp_start: float = Field(0.04, gt=0, description="temperature from which it grows linearly")
    teacher_temp_warmup: float = Field(0.3, ge=0, le=1, description="share of the steps in which it grows")
    teacher_momentum: float = Field(0.996, ge=0, le=1, description="first momentum of the EMA; half a cosine to 1")
    center_momentum: float = Field(0.9, ge=0, le=1, description="momentum of the centre of the teacher's output")
    prototypes_frozen: float = Field(0.01, ge=0, le=1, description="share of the steps in which prototypes stay fixed")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("global_scale", "local_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name}: got {(low, high)}, expected 0 < low <= high <= 1")
        return self


class Autoencoder(Group):
    """What an autoencoder predicts (v2 section 4.2, Fig. 7). Only `method="ae"` reads it."""

    block: Odd = Field(1, description="side in patches of the image block that every token regresses, centred on it")


class Siamese(Group):
    """What the Siamese network of v1 leaves open: a reconstruction, see `models.siamese`. Only it reads this."""

    positives: Literal["geometry", "position"] = Field(
        "geometry", description="tokens of two crops that are pulled together: near in the photograph, or same place"
    )
    positive_radius: float = Field(0.5, gt=0, description="largest distance of two positives, in patches [open]")
    token_average: bool = Field(True, description="Gaussian average of tokens and pixels in the decoder's place")
    siamese_cross_view: float = Field(1.0, ge=0, description="weight of L_cross, 1 - cosine of positives")
    siamese_in_view: float = Field(1.0, ge=0, description="weight of L_in (Eq. 6) inside each crop")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.siamese_cross_view == self.siamese_in_view == 0:
            raise ValueError("siamese_cross_view, siamese_in_view: got 0, 0, expected at least one weight above 0")
        return self


class Supervision(Group):
    """The augmentation of published supervised training; off by default. Only `method="supervised"` reads it."""

    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth of the last block; linear from 0")
    rand_augment: str | None = Field(None, description="timm's RandAugment, as 'rand-m9-mstd0.5-inc1'; none without")
    erase: float = Field(0.0, ge=0, le=1, description="probability of random erasing, by pixel noise")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup; 0 turns it off")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix; 0 turns it off")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing")

    @property
    def mixes(self) -> bool:
        """Whether targets are anything but the labels themselves."""
        return max(self.mixup, self.cutmix, self.smoothing) > 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rand_augment is not None and not self.rand_augment.startswith("rand"):
            raise ValueError(f"rand_augment: got {self.rand_augment!r}, expected timm's form 'rand-m9-mstd0.5-inc1'")
        return self


class Optim(Group):
    """Length, batch and schedule of the training."""

    batch_size: int = Field(64, gt=0, description="images an optimiser step, over all devices")
    accum_steps: int = Field(1, gt=0, description="micro-batches a step; divides batch_size; means are per micro-batch")
    steps: int | None = Field(150, gt=0, le=LONGEST, description="optimiser steps (or give epochs)")
    epochs: float | None = Field(None, gt=0, le=LONGEST, description="passes over the training images (or give steps)")
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
        if self.batch_size % self.accum_steps:
            raise ValueError(f"accum_steps: got {self.accum_steps}, expected a divisor of batch_size {self.batch_size}")
        return self


class Runtime(Group):
    """What must not affect results: where, how fast and how loudly."""

    device: str = Field("auto", description="auto | cuda | cuda:1 | mps | cpu")
    out: str = Field("outputs", description="folder of the runs")
    workers: int = Field(2, ge=0, le=1024, description="decoding processes of sources too large to hold in memory")
    device_cache_gb: float = Field(4.0, ge=0, description="sources up to this size are held on the device as uint8")
    cache_gb: float = Field(10.0, ge=0, description="pictures kept in <out>/cache, decoded or copied; 0: none")
    fsdp: bool = Field(
        False, description="several processes: spread weights and optimiser over them (FSDP2), not copies"
    )
    compile: bool = Field(False, description="torch.compile the model")
    train: bool | None = Field(
        None, description="false: what is not trained yet is refused by name; else it is trained"
    )
    log_every: int = Field(10, gt=0, description="steps between log lines")
    checkpoint_every: int = Field(100, gt=0, description="steps between resumable checkpoints")
    snapshots: int = Field(8, ge=0, le=10_000, description="weights kept on the way, at logarithmic steps")
    tensorboard: bool = Field(True, description="also write TensorBoard events")
    progress: bool = Field(True, description="show a progress bar")
