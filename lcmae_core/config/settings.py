"""All settings of a run: changed by leaf name, read from plain data, named by the digest of what affects results."""

import hashlib
import json
from collections.abc import Mapping, Set
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from lcmae_core.config.errors import LcmaeError, nearest, one_line
from lcmae_core.config.groups import (
    Autoencoder,
    Data,
    Dino,
    Group,
    Loss,
    Masking,
    Model,
    Optim,
    Runtime,
    Siamese,
    Supervision,
    one_length,
)
from lcmae_core.config.names import on_disk, todays

Method = Literal["mae", "ae", "dino", "supervised", "siamese"]
"""What is trained: the masked autoencoder (with any of the losses), the autoencoder without masking of v2 Fig. 7, one
of the two references on the same data, or the Siamese network of v1 (our reconstruction)."""


class Settings(Group):
    """All settings of one pre-training run."""

    method: Method = Field("mae", description="mae (and LC-MAE) | ae | siamese, or a reference: dino | supervised")
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, order, crops and masks")
    data: Data = Data()
    model: Model = Model()
    masking: Masking = Masking()
    loss: Loss = Loss()
    autoencoder: Autoencoder = Autoencoder()
    dino: Dino = Dino()
    siamese: Siamese = Siamese()
    supervision: Supervision = Supervision()
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

    @property
    def predicted_block(self) -> int:
        """Side in patches of what a token predicts: its own patch, except in an autoencoder."""
        return self.autoencoder.block if self.method == "ae" else 1

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
        if self.method == "dino":
            self._check_local_size(patch)
        if self.method == "supervised":
            self._check_pairs()
        if self.predicted_block // 2 >= min(self.grid):
            raise ValueError(
                f"block: got {self.autoencoder.block}, expected at most {2 * min(self.grid) - 1}: "
                f"the {self.grid[0]}x{self.grid[1]} grid has nothing to reflect beyond that"
            )
        return self

    def _check_pairs(self) -> None:
        count = self.optim.batch_size // self.optim.accum_steps
        if (self.supervision.mixup or self.supervision.cutmix) and count % 2:
            raise ValueError(f"batch_size: got micro-batches of {count}, expected an even number (mixup pairs images)")

    def _check_local_size(self, patch: int) -> None:
        local = self.dino.local_size
        if any(side < patch or side % patch for side in local):
            raise ValueError(f"local_size: got {local}, expected multiples of the patch of {patch} px")
        if any(small > large for small, large in zip(local, self.data.image_size)):
            raise ValueError(f"local_size: got {local}, expected at most image_size {self.data.image_size}")


GROUPS: dict[str, type[Group]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}
"""Group name -> class."""

SHOWN = "lcmae train --list"
"""What shows every setting."""
LEAVES: dict[str, str] = {leaf: group for group, cls in GROUPS.items() for leaf in cls.model_fields} | {
    "method": "",
    "seed": "",
}
"""Leaf name -> name of its group ('' for the top)."""

_ENCODER = {"patch_size", "width", "depth", "heads", "mlp_ratio"}
_AVERAGE = {"decoder_kernel", "decoder_sigma"}


def _leaves(*groups: type[Group], more: Set[str] = frozenset(), less: Set[str] = frozenset()) -> frozenset[str]:
    always = {"method", "seed"}.union(Data.model_fields, _ENCODER, Optim.model_fields, Runtime.model_fields)
    return frozenset(always.union(*(group.model_fields for group in groups), more) - less)


READS: dict[Method, frozenset[str]] = {
    "mae": _leaves(Model, Masking, Loss),
    "ae": _leaves(Model, Autoencoder, more={"reduction", "norm_pix"}, less={"projector_dim", "project_from"}),
    "dino": _leaves(Dino, less={"crop_scale"}),  # it has scales of its own for its two kinds of crops
    "supervised": _leaves(Supervision),
    "siamese": _leaves(Siamese, more=_AVERAGE | {"projector_dim", "reduction", "in_view_pixels"}),
}
"""Method -> leaves that it reads."""
UNUSED: dict[Method, frozenset[str]] = {method: frozenset(LEAVES) - read for method, read in READS.items()}
"""Method -> leaves that it does not read: they must be valid, but change neither its results nor its digest."""
_READ_BY_DECODER = {
    "transformer": {"decoder_depth", "decoder_heads"},
    "convolution": {"decoder_kernel"},
    "average": _AVERAGE,
}
_OF_SOME_DECODERS = frozenset().union(*_READ_BY_DECODER.values())


def unused(settings: Settings) -> frozenset[str]:
    """Leaves that these settings do not read, by their method, and by their kind of decoder or their positives."""
    if settings.method == "siamese":  # no decoder, but the average that stands in its place
        return UNUSED["siamese"] | _unused_by_siamese(settings.siamese)
    return UNUSED[settings.method] | (_OF_SOME_DECODERS - _READ_BY_DECODER[settings.model.decoder])


def _unused_by_siamese(siamese: Siamese) -> frozenset[str]:
    radius = {"positive_radius"} if siamese.positives == "position" else set()
    pairs = set() if siamese.siamese_cross_view else {"positives", "positive_radius"}
    pixels = set() if siamese.siamese_in_view else {"in_view_pixels"}
    return frozenset(radius | pairs | pixels | (set() if siamese.token_average else _AVERAGE))


def replace(settings: Settings, changes: Mapping[str, Any] | None = None, /, **more: Any) -> Settings:
    """A copy of `settings` with leaves changed by name, validated as a whole; steps and epochs take each other back.

    Raises:
        LcmaeError: unknown name (with the nearest valid one), or a value out of its range.
    """
    tree, changes = settings.model_dump(by_alias=False), one_length(todays({**(changes or {}), **more}))
    for name, value in changes.items():
        if name not in LEAVES:
            raise LcmaeError(f"unknown setting {name!r} (= {value!r}): {nearest(name, LEAVES, SHOWN)}")
        (tree[LEAVES[name]] if LEAVES[name] else tree)[name] = value
    return parse(tree)


def parse(tree: Mapping[str, Any]) -> Settings:
    """Settings from nested plain data (a `settings.json`), with one-line errors."""
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise one_line(error, LEAVES) from None


def digest(settings: Settings, data_identity: str) -> str:
    """Ten hex digits that name everything that affects results.

    Only departures from the defaults are hashed, so a setting added later keeps old runs valid. For the same reason a
    default that affects results is never changed: profiles say what they need. For the same reason leaves that the
    method or the decoder does not read (`unused`) do not count. The source counts by what it holds (`data_identity`),
    not by where it lies.
    """
    left_out = {on_disk(leaf) for leaf in unused(settings)}
    tree = settings.model_dump(mode="json", exclude={"runtime": True, "data": {"source"}}, exclude_defaults=True)
    for group in GROUPS.keys() & tree.keys():
        tree[group] = {leaf: value for leaf, value in tree[group].items() if leaf not in left_out}
    departures = {group: leaves for group, leaves in tree.items() if leaves != {}}
    text = json.dumps([departures, data_identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
