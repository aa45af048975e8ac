"""The linear probe: how well a linear classifier reads the classes off a frozen encoder.

Public MAE recipe: BatchNorm without affine, then a linear layer, trained by LARS. The slow path encodes a random crop
at each visit, as published; the fast one encodes whole images once.
Letters: B images, C channels, H x W pixels, M images of a split, D width, T tokens, K classes.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from timm.optim import Lars
from torch import Tensor, nn
from torch.nn import functional as F

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import LinearProbe
from lcmae_core.data.counter import positions
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.splits import Source
from lcmae_core.models.encoder import Encoder
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.machine import pick_device
from lcmae_core.training.downstream import Origin, Task, crop_loader, evaluate, judge
from lcmae_core.training.evaluate import evaluation_loader
from lcmae_core.training.methods import Terms

_CHUNK = 1024  # images encoded at once, whatever the batch
_CPU_CHUNK = 64  # at quick a sixth quicker than 16 or 256: what is between the layers stays in a CPU's cache


class Features(NamedTuple):
    """values: one vector an image. labels: None where the source has none."""

    values: Float[Tensor, "M D"]
    labels: Int64[Tensor, "M"] | None


def pooled(tokens: Float[Tensor, "B T D"], token: str) -> Float[Tensor, "B D"]:
    """The feature of an image: its CLS token ("cls"), or the mean of its patch tokens ("mean")."""
    return tokens[:, 0] if token == "cls" else tokens[:, 1:].mean(dim=1)


def image_features(encoder: Encoder, loader: Loader, limit: int | None = None, token: str = "mean") -> Features:
    """Features of whole, unmasked images (centre view), in order."""
    size = _CPU_CHUNK if loader.device.type == "cpu" else None
    with torch.inference_mode():
        whole = loader.evaluation(size, limit)
        values, labels = zip(*((pooled(encoder(batch.images), token), batch.labels) for batch in whole))
    return Features(torch.cat(values), None if labels[0] is None else torch.cat(labels))


class Probe(nn.Module):
    """BatchNorm without affine and a linear layer; weights N(0, 0.01) cut at two deviations, bias 0."""

    def __init__(self, width: int, classes: int, seed: int = 0):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Logits."""
        return self.head(self.norm(features))


def build_lars(probe: Probe, recipe: LinearProbe) -> Lars:
    """timm's LARS: v <- m v + r g, w <- w - lr v with r = trust |w| / |g| for the matrix and r = 1 for the bias.

    g includes the weight decay, which the bias has none of.
    """
    groups = [
        {"params": [p for p in probe.parameters() if p.ndim > 1], "always_adapt": True},
        {"params": [p for p in probe.parameters() if p.ndim <= 1], "always_adapt": False, "weight_decay": 0.0},
    ]
    return Lars(
        groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.probe_decay, trust_coeff=recipe.trust
    )


def cached_batches(features: Features, recipe: LinearProbe, seed: int, start: int, stop: int) -> Iterator[Batch]:
    """Training batches of features made before, in the order in which their images would come; `images` holds them."""
    assert features.labels is not None
    device = features.values.device
    for step in range(start, stop):
        epoch, index = (p.to(device) for p in positions(seed, step, recipe.batch_size, len(features.values)))
        yield Batch(features.values[index], epoch, index, features.labels[index])


def linear_probe(
    origin: Origin, recipe: LinearProbe | None = None, *, settings: Settings | None = None, resume: bool = True
) -> Evaluation:
    """Train a linear probe once, by default the published recipe; `settings` say data, seed and runtime, by default
    the origin's.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
    """
    recipe, settings = recipe or LinearProbe(), settings or origin.settings
    device = pick_device(settings.runtime.device)

    def prepare(encoder: Encoder, source: Source, classes: int) -> Task:
        probe = Probe(encoder.embed_dim, classes, settings.seed).to(device)
        optimizer = build_lars(probe, recipe)
        if recipe.cached:
            whole = evaluation_loader(settings, split="train", source=source)
            parts = [(_encoded(encoder, batch.images, recipe), batch.labels) for batch in whole.evaluation()]
            known = Features(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts if p[1] is not None]))
            return Task(
                probe, optimizer, lambda a, b: cached_batches(known, recipe, settings.seed, a, b), _backward(probe)
            )
        crops = crop_loader(settings, recipe, source)

        def encoded(start: int, stop: int) -> Iterator[Batch]:
            return (b._replace(images=_encoded(encoder, b.images, recipe)) for b in crops.batches(start, stop))

        return Task(probe, optimizer, encoded, _backward(probe))

    def held_out(task: Task, encoder: Encoder, loader: Loader) -> Predictions:
        task.model.eval()
        return judge(lambda batch: task.model(_encoded(encoder, batch.images, recipe)), loader)

    return evaluate(origin, recipe, settings, prepare, held_out, resume=resume)


def classifier(evaluation: Evaluation, encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """What a finished linear probe says of normalised images, (B, C, H, W) -> (B, K) logits, on the encoder's device.

    Raises:
        LcmaeError: the evaluation is not finished, or judged another kind of head.
    """
    recipe, weights = evaluation.recipe, evaluation.weights()
    if not isinstance(recipe, LinearProbe):
        raise LcmaeError(f"evaluation: got {evaluation.name!r}, a {recipe.kind}, expected a linear probe")
    probe = Probe(encoder.embed_dim, len(weights["head.bias"]))
    probe.load_state_dict(weights)
    probe.to(next(encoder.parameters()).device).eval()

    @torch.no_grad()
    def scores(images: Tensor) -> Tensor:
        return probe(_encoded(encoder, images, recipe))

    return scores


def _encoded(encoder: Encoder, images: Float[Tensor, "B C H W"], recipe: LinearProbe) -> Float[Tensor, "B D"]:
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        return torch.cat([pooled(encoder(part), recipe.token).float() for part in images.split(_CHUNK)])


def _backward(probe: Probe) -> Callable[[Batch, int], Terms]:
    def backward(batch: Batch, step: int) -> Terms:
        assert batch.labels is not None
        logits = probe(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        return {"total": loss.detach(), "accuracy": (logits.argmax(dim=1) == batch.labels).float().mean()}

    return backward
