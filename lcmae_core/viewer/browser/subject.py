"""A model and its images, and the scenes that can be made of them: maps, pictures, words.

Letters (CONTRIBUTING.md): B images, C channels, h x w pixels, N patches, K visible patches, L layers, H heads, T
tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.blocks import attention_blocks
from lcmae_core.analysis.reconstruction import as_pictures, reconstruct
from lcmae_core.analysis.rollout import attention_rollout
from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.inputs import PICTURES, image_grid, patch_sides
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask, mask_from_hidden, random_mask
from lcmae_core.models.pretrained import expected_images
from lcmae_core.viewer.browser.maps import MEGABYTE, check_budget, encode_rows
from lcmae_core.viewer.browser.overview import ALIKE, head_distances, head_similarities
from lcmae_core.viewer.browser.pictures import as_bytes, as_colours
from lcmae_core.viewer.browser.scene import Choice, Drawn, Scene, counted_from_one

PARTS = ("encoder", "decoder")
STATISTICS = {
    "visible": ("norm-pix", "norm-pix; patch mean and contrast", "guessed from visible patches"),
    "true": ("norm-pix oracle", "norm-pix; TRUE patch mean and contrast:", "leaks what was hidden"),
    "pixel": ("pixel", "pixels as predicted", "no patch statistics used"),
}
"""How a prediction becomes pixels -> (name in `reconstruct`, two lines that say so under the picture)."""


class Browsed:
    """A model and its images, and what can be asked of them.

    Raises:
        LcmaeError: another kind of model, images of another shape, unknown statistics, names of another number.
    """

    def __init__(
        self,
        model: MAE | VisionTransformer,
        images: Float[Tensor, "B C h w"],
        *,
        names: Sequence[str] | None = None,
        title: str | None = None,
        statistics: str = "visible",
        budget_mb: float = 64,
    ):
        if not isinstance(model, MAE | VisionTransformer):
            raise LcmaeError(f"model: got {type(model).__name__}, expected an MAE or a timm VisionTransformer")
        if statistics not in STATISTICS:
            raise LcmaeError(f"statistics: got {statistics!r}, {nearest(statistics, STATISTICS)}")
        self.model, self.images, self.statistics, self.budget_mb = model, images, statistics, budget_mb
        self.vit: Any = model.encoder if isinstance(model, MAE) else model
        self.grid = image_grid(self.vit, images)
        self.names = tuple(names) if names is not None else tuple(f"image {i + 1}" for i in range(len(images)))
        if len(self.names) != len(images):
            raise LcmaeError(f"names: got {len(self.names)}, expected {len(images)}, one for each image")
        self.title = title or _title(model)
        self._alike: tuple[Any, NDArray[np.float64] | None] = (None, None)

    def replace_images(self, images: Float[Tensor, "B C h w"], names: Sequence[str]) -> None:
        """Other images of the same shape, and their names."""
        self.images, self.names, self._alike = images, tuple(names), (None, None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts whose maps can be shown."""
        return PARTS if isinstance(self.model, MAE) and self.model.decoder is not None else PARTS[:1]

    def size(self, part: str) -> tuple[int, int]:
        """Layers and heads of a part."""
        blocks = attention_blocks(self.model, part)
        return len(blocks), blocks[0].attn.num_heads

    def prefix(self, part: str) -> tuple[str, ...]:
        """Names of the tokens before the patches."""
        if part == "decoder":
            return ("CLS",)
        classes = int(getattr(self.vit, "cls_token", None) is not None)
        teacher = ("distillation",) * (getattr(self.vit, "dist_token", None) is not None)
        others = self.vit.num_prefix_tokens - classes - len(teacher)
        return ("CLS",) * classes + teacher + tuple(f"register {i + 1}" for i in range(others))

    def check(self, choice: Choice) -> Choice:
        """The choice with layers and heads spelled out.

        Raises:
            LcmaeError: an unknown part, no decoder, an image, layer or head out of range.
        """
        if choice.part not in PARTS:
            raise LcmaeError(f"part: got {choice.part!r}, {nearest(choice.part, PARTS)}")
        if choice.part not in self.parts:
            raise LcmaeError(f"part: got 'decoder', expected 'encoder': {self.title} has no decoder")
        if not 0 <= choice.image < len(self.images):
            raise LcmaeError(f"image: got {choice.image}, expected 0 to {len(self.images) - 1}")
        layers, heads = self.size(choice.part)
        return replace(
            choice,
            layers=_indices("layers", choice.layers, layers),
            heads=_indices("heads", choice.heads, heads),
        )

    def mask(self, choice: Choice) -> Mask:
        """The mask of a choice, visible patches in natural order: painted by hand, or drawn from ratio and seed."""
        count = self.grid[0] * self.grid[1]
        if choice.hidden is not None:
            hidden = torch.tensor(choice.hidden)[None]
        else:
            generator = torch.Generator().manual_seed(choice.seed)
            hidden = random_mask(1, count, choice.ratio, generator=generator, grid=self.grid).hidden
        return mask_from_hidden(hidden).to(next(self.model.parameters()).device)

    def scene(self, choice: Choice) -> Scene:
        """Maps, pictures and words of one choice; only this image's maps are computed.

        Raises:
            LcmaeError: as `check`, a mask that hides nothing or everything, maps above the memory budget.
        """
        choice = self.check(choice)
        assert choice.layers is not None
        assert choice.heads is not None
        blind = choice.masked and choice.part == "encoder"
        mask = self.mask(choice) if blind or choice.part == "decoder" else None
        keys = np.flatnonzero(~mask.hidden[0].cpu().numpy()) if mask and blind else np.arange(np.prod(self.grid))
        prefix = self.prefix(choice.part)
        check_budget(len(choice.layers), len(choice.heads), len(prefix) + len(keys), self.budget_mb)
        with self._still():
            image = self.images[choice.image : choice.image + 1].to(next(self.model.parameters()).device)
            expected = expected_images(self.model, image)  # a published model has a mean and deviation of its own
            maps, rolled = self._maps(choice, expected, mask, len(prefix) + len(keys))
            pictures = self._pictures(image, mask)
        distances = head_distances(
            maps[0], self.grid, patch_sides(self.vit), torch.as_tensor(keys), self._asked(mask, keys, blind)
        )
        return Scene(
            rows=encode_rows(maps[0], len(prefix)),
            rollout=None if rolled is None else encode_rows(rolled[0, :, None], len(prefix)),
            grid=self.grid,
            prefix=prefix,
            layers=choice.layers,
            heads=choice.heads,
            keys=keys,
            hidden=None if mask is None else mask.hidden[0].cpu().numpy(),
            blind=blind,
            pictures=pictures,
            words=self._words(choice, prefix, len(keys)),
            distance=distances,
        )

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Without stochastic depth and dropout, which would make the maps another draw each time."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    def similarities(self, choice: Choice) -> NDArray[np.float64]:
        """S_attn of each chosen head (L, H) over the first images, all under the mask of the choice; kept until another
        mask or part is asked for.

        Raises:
            LcmaeError: as `check`, or there is one image.
        """
        choice = self.check(choice)
        blind = choice.masked and choice.part == "encoder"
        mask = self.mask(choice) if blind or choice.part == "decoder" else None
        key = (choice.part, None if mask is None else mask.hidden.cpu().numpy().tobytes())
        if self._alike[0] != key:
            visible = self.grid[0] * self.grid[1] if mask is None or not blind else mask.keep.shape[1]
            prefix = len(self.prefix(choice.part))
            rows = self._asked(mask, np.arange(visible), blind) + prefix
            with self._still():
                similarities = head_similarities(self.model, self.images[:ALIKE], choice.part, mask, rows, prefix)
            self._alike = key, similarities
        assert self._alike[1] is not None
        return self._alike[1][list(choice.layers or ())][:, list(choice.heads or ())]

    @staticmethod
    def _asked(mask: Mask | None, keys: NDArray[np.int64], blind: bool) -> Tensor:
        """Which of the columns are the queries of a head's number: all of an encoder, the hidden ones of a decoder."""
        return torch.arange(len(keys)) if mask is None or blind else mask.hidden[0].cpu().nonzero()[:, 0]

    @torch.no_grad()
    def _maps(self, choice: Choice, image: Tensor, mask: Mask | None, tokens: int) -> tuple[Tensor, Tensor | None]:
        """The chosen maps (1, L, H, T, T), and the rollout to the chosen layers (1, L, T, T) where all maps fit."""
        assert choice.layers is not None
        assert choice.heads is not None
        layers, heads = self.size(choice.part)
        if layers * heads * tokens**2 > self.budget_mb * MEGABYTE:
            chosen = attention_maps(
                self.model, image, part=choice.part, layers=choice.layers, heads=choice.heads, mask=mask
            )
            return chosen, None
        maps = attention_maps(self.model, image, part=choice.part, mask=mask)
        rolled = attention_rollout(maps)[:, list(choice.layers)]
        return maps[:, list(choice.layers)][:, :, list(choice.heads)], rolled

    @torch.no_grad()
    def _pictures(self, image: Tensor, mask: Mask | None) -> tuple[Drawn, ...]:
        whole = self._whole(image.float())
        original, shown = as_colours(whole)
        if mask is None:
            return (Drawn(original, "original", shown),)
        hidden = mask.hidden[0].cpu().numpy()
        side = original.shape[0] // self.grid[0], original.shape[1] // self.grid[1]
        covered = hidden.reshape(self.grid).repeat(side[0], axis=0).repeat(side[1], axis=1)  # (h, w)
        masked = np.where(covered[:, :, None], np.uint8(128), original)
        count = f"{hidden.sum()} of {hidden.size} hidden"
        drawn = [Drawn(original, "original", shown), Drawn(masked, "masked", (count, ""))]
        if isinstance(self.model, MAE) and self.model.decoder is not None and image.shape[1] in PICTURES:
            name, *notes = STATISTICS[self.statistics]
            made = reconstruct(self.model, image.float(), mask, norm_pix=self.statistics != "pixel")[name]
            pixels = as_bytes(as_pictures(made.pixels, self.model.arch.patch_size, self.grid))
            title = f"reconstructed, {float(made.psnr[0]):.1f} dB"
            drawn.append(Drawn(pixels, title, (notes[0], notes[1])))
        return tuple(drawn)

    def _whole(self, image: Tensor) -> Tensor:
        """The image with what the model adds below and to the right, if it fills up patches, so that the grid fits."""
        (rows, cols), (height, width) = self.grid, patch_sides(self.vit)
        missing = (0, cols * width - image.shape[3], 0, rows * height - image.shape[2])
        return F.pad(image, missing) if any(missing) else image

    def _words(self, choice: Choice, prefix: tuple[str, ...], keys: int) -> dict[str, str]:
        count = self.grid[0] * self.grid[1]
        how = f"ratio {choice.ratio:g}, seed {choice.seed}"
        if choice.hidden is not None:
            how = f"painted by hand, ratio {painted_ratio(choice.hidden):g}"
        visible = keys if choice.part == "encoder" else int((~self.mask(choice).hidden).sum())
        if choice.part == "decoder":
            part = f"decoder under a mask ({count - visible} of {count} patches hidden, {how})"
        elif choice.masked:
            part = f"encoder on {keys} visible of {count} patches (mask: {how})"
        else:
            part = f"encoder without a mask, on all {count} patches"
        assert choice.layers is not None
        assert choice.heads is not None
        tokens = f"{keys} patches" + (f" + {' + '.join(_counted(prefix))}" if prefix else "")
        return {
            "image": self.names[choice.image],
            "model": self.title,
            "part": part,
            "layers": counted_from_one("layer", choice.layers),
            "heads": counted_from_one("head", choice.heads),
            "tokens": tokens,
            "distance": f"attention distance in px (mean over {self._queries(choice, keys)} of this image)",
            "similarity": f"S_attn (mean cosine of its maps, {self._queries(choice, keys)}, "
            f"over the pairs of {min(ALIKE, len(self.images))} images)",
        }

    def _queries(self, choice: Choice, keys: int) -> str:
        if choice.part == "decoder":
            return f"the {int(self.mask(choice).hidden.sum())} hidden patches"
        return f"the {keys} visible patches" if choice.masked else f"all {keys} patches"


def painted_ratio(hidden: Sequence[bool]) -> float:
    """Share of hidden patches, in hundredths."""
    return round(sum(hidden) / len(hidden), 2)


def _counted(prefix: tuple[str, ...]) -> list[str]:
    words = [name for name in prefix if not name.startswith("register")]
    registers = len(prefix) - len(words)
    return words + [f"{registers} register{'s' if registers > 1 else ''}"] * (registers > 0)


def _indices(what: str, chosen: Sequence[int] | None, count: int) -> tuple[int, ...]:
    indices = tuple(range(count) if chosen is None else chosen)
    if not indices or not all(0 <= i < count for i in indices):
        raise LcmaeError(f"{what}: got {list(indices)}, expected {what} from 0 to {count - 1}")
    return indices


def _title(model: MAE | VisionTransformer) -> str:
    if isinstance(model, MAE):
        return f"MAE, patch {model.arch.patch_size}"
    # the architecture alone: timm's tag names pretrained weights even where none were loaded
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    return config.get("architecture") or type(model).__name__
