"""What a training step must compute and move, by formulas: FLOPs and bytes of every matrix product, method by method.

A multiply-add is two FLOPs. Counted are the products (linear layers, attention, similarities of Eq. 6, averages of
tokens, DINO's cross-entropy), forward and backward, as `torch.utils.flop_counter` counts them: the backward pass of
attention makes the scores again, so it takes 5 products to the 2 forward. Bytes are the least that can be moved: a
product reads its two operands and writes its result once, all between two products rides along, and AdamW reads weight,
gradient and two moments and writes three of them. Left out: augmentation, and what never is a product.

Letters (CONTRIBUTING.md): B images, N patches, K kept patches, T tokens, D width, E width of a result, H x W pixels, p
side of a patch, P values of a patch, V width of v.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from lcmae_core.config import Settings
from lcmae_core.models.masking import num_kept
from lcmae_core.models.reference import GLOBAL_CROPS

FLOAT32, BFLOAT16 = 4, 2
AGAIN = ("student, local crops", "student's head, local crops")
"""Parts whose weights are those of another part."""


class Product(NamedTuple):
    """`batch` products of (rows, inner) by (inner, cols), and which gradients follow.

    left, right: whether the gradient of that operand is taken. weight: the right operand is one for all of the batch;
    fixed: the left one is. overlap: rows that share a value of the left one, as of a convolution, where it is no copy.
    exact: float32 even under bf16.
    """

    part: str
    batch: int
    rows: int
    inner: int
    cols: int
    left: bool = True
    right: bool = True
    fixed: bool = False
    overlap: int = 1
    exact: bool = False

    @property
    def times(self) -> int:
        """Forward, and a product of the same size for each gradient."""
        return 1 + self.left + self.right

    @property
    def flops(self) -> int:
        """Of forward and backward pass."""
        return 2 * self.batch * self.rows * self.inner * self.cols * self.times

    def moved(self, width: int) -> int:
        """Bytes, a value taking `width`."""
        left = (1 if self.fixed else self.batch) * self.rows * self.inner // self.overlap
        values = left + self.batch * (self.inner + self.rows) * self.cols
        return (FLOAT32 if self.exact else width) * values * self.times


class Attention(NamedTuple):
    """Softmax attention of `tokens` tokens with each other, of total width `inner`, in `batch` images."""

    part: str
    batch: int
    tokens: int
    inner: int
    backward: bool = True

    @property
    def flops(self) -> int:
        """Two products forward, five backward."""
        return 2 * self.batch * self.tokens**2 * self.inner * (7 if self.backward else 2)

    def moved(self, width: int) -> int:
        """Queries, keys, values and result; backward those, the result's gradient and three gradients."""
        return width * self.batch * self.tokens * self.inner * (12 if self.backward else 4)


Item = Product | Attention


class Cost(NamedTuple):
    """Of one image of a training step: floating-point operations, and bytes moved."""

    flops: float
    bytes: float


def cost(settings: Settings, classes: int = 1000) -> Cost:
    """What an image costs in a step of these settings, the optimiser's share of the batch included.

    `classes` sizes the head of a supervised model.
    """
    width, batch = BFLOAT16 if settings.optim.precision == "bf16" else FLOAT32, settings.optim.batch_size
    parts = [*items(settings, classes)]
    moved = sum(item.moved(width) for item in parts) + 7 * FLOAT32 * weights(parts)
    return Cost(sum(item.flops for item in parts) / batch, moved / batch)


def weights(parts: Iterable[Item]) -> int:
    """Values of the matrices that AdamW moves; vectors beside them are a thousandth."""
    trained = (i for i in parts if isinstance(i, Product) and i.batch == 1 and i.right and not i.exact)
    return sum(i.inner * i.cols for i in trained if i.part not in AGAIN)


def items(settings: Settings, classes: int = 1000) -> Iterator[Item]:
    """Every product of a training step."""
    batch, count = settings.optim.batch_size, settings.num_patches
    if settings.method == "dino":
        yield from _dino(settings, batch, count)
    elif settings.method == "siamese":
        yield from _siamese(settings, 2 * batch, count)
    elif settings.method == "supervised":
        yield from _encoder(settings, batch, count)
        yield _linear("head", batch, settings.model.width, classes)
    else:
        yield from _masked(settings, batch, count)


def _linear(part: str, rows: int, inner: int, cols: int, *, left: bool = True, right: bool = True) -> Product:
    return Product(part, 1, rows, inner, cols, left, right)


def _blocks(part: str, depth: int, batch: int, tokens: int, width: int, hidden: int, trained: bool) -> Iterator[Item]:
    """Transformer blocks: queries, keys and values; attention; its projection; the two layers of the MLP."""
    rows, grad = batch * tokens, {"left": trained, "right": trained}
    for _ in range(depth):
        yield _linear(part, rows, width, 3 * width, **grad)
        yield Attention(part, batch, tokens, width, trained)
        yield _linear(part, rows, width, width, **grad)
        yield _linear(part, rows, width, hidden, **grad)
        yield _linear(part, rows, hidden, width, **grad)


def _encoder(settings: Settings, batch: int, kept: int, trained: bool = True, part: str = "encoder") -> Iterator[Item]:
    """On `kept` patches and CLS. Pixels need no gradient."""
    arch = settings.model
    pixels = arch.patch_size**2 * settings.data.channels
    yield _linear(part, batch * kept, pixels, arch.width, left=False, right=trained)
    yield from _blocks(part, arch.depth, batch, kept + 1, arch.width, int(arch.width * arch.mlp_ratio), trained)


def _masked(settings: Settings, batch: int, count: int) -> Iterator[Item]:
    """MAE, LC-MAE and the autoencoder: encoder, decoder, projector, Eq. 6."""
    loss, arch, masked = settings.loss, settings.model, settings.method == "mae"
    images = batch * (loss.num_views if masked else 1)
    unit = settings.masking.mask_unit
    hides = masked and not settings.masking.erased
    kept = num_kept(count // unit**2, settings.masking.mask_ratio) * unit**2 if hides else count
    values = (settings.predicted_block * arch.patch_size) ** 2 * settings.data.channels
    yield from _encoder(settings, images, kept)
    yield from _decoder(settings, images, kept + 1, count, values)
    if masked and loss.needs_projector:
        source = values if arch.project_from == "pred" else arch.decoder_width
        yield _linear("projector", images * count, source, arch.projector_dim)
        if loss.in_view > 0:
            yield from in_view_items(images, count, arch.projector_dim, arch.patch_size**2 * settings.data.channels)


def _decoder(settings: Settings, images: int, tokens: int, count: int, values: int) -> Iterator[Item]:
    """The decoder that is set: it takes `tokens` tokens and predicts `values` for each of `count` patches."""
    arch, part = settings.model, "decoder"
    width, rows = arch.decoder_width, images * count
    hidden = int(width * arch.mlp_ratio)
    yield _linear(part, images * tokens, arch.width, width)
    if arch.decoder == "average":
        yield Product(part, images, count, count, width, left=False, fixed=True, exact=True)
        yield _linear(part, rows, width, hidden)
        yield _linear(part, rows, hidden, values)
        return
    if arch.decoder == "convolution":
        side = arch.decoder_kernel
        yield _linear(part, rows, side**2 * width, width)._replace(overlap=side**2)
    else:
        yield from _blocks(part, arch.decoder_depth, images, count + 1, width, hidden, trained=True)
    yield _linear(part, rows, width, values)


def in_view_items(images: int, count: int, width: int, pixels: int) -> Iterator[Item]:
    """Eq. 6: the similarities of v, whose gradient comes by both sides, and those of pixels."""
    yield Product("losses", images, count, width, count, exact=True)
    yield Product("losses", images, count, pixels, count, left=False, right=False, exact=True)


def _dino(settings: Settings, batch: int, count: int) -> Iterator[Item]:
    """Student on all crops, teacher on the global ones, their heads, and the cross-entropy of every pair of crops."""
    dino, side = settings.dino, settings.model.patch_size
    local = (dino.local_size[0] // side) * (dino.local_size[1] // side)
    crops = GLOBAL_CROPS + dino.local_crops
    yield from _encoder(settings, batch * GLOBAL_CROPS, count, part="student")
    if dino.local_crops:
        yield from _encoder(settings, batch * dino.local_crops, local, part=AGAIN[0])
    yield from _encoder(settings, batch * GLOBAL_CROPS, count, trained=False, part="teacher")
    for part, images, trained in (
        ("student's head", batch * GLOBAL_CROPS, True), (AGAIN[1], batch * dino.local_crops, True),
        ("teacher's head", batch * GLOBAL_CROPS, False),
    ):  # fmt: skip
        sizes = (settings.model.width, dino.dino_hidden, dino.dino_hidden, dino.dino_bottleneck, dino.dino_dim)
        for inner, cols in pairwise(sizes):
            yield _linear(part, images, inner, cols, left=trained, right=trained)
    yield Product("losses", 1, GLOBAL_CROPS, batch * dino.dino_dim, crops, left=False, exact=True)


def _siamese(settings: Settings, images: int, count: int) -> Iterator[Item]:
    """Encoder on two whole crops, the average of tokens and of pixels, projector, Eq. 6."""
    arch, siamese = settings.model, settings.siamese
    pixels = arch.patch_size**2 * settings.data.channels
    yield from _encoder(settings, images, count)
    if siamese.token_average:
        yield Product("average", images, count, count, arch.width, left=False, fixed=True, exact=True)
    yield _linear("projector", images * count, arch.width, arch.projector_dim)
    if siamese.siamese_in_view > 0:
        if siamese.token_average:
            yield Product("losses", images, count, count, pixels, left=False, right=False, fixed=True, exact=True)
        yield from in_view_items(images, count, arch.projector_dim, pixels)
