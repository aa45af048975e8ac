"""Fine-tuning by the public MAE recipe, and the supervised baseline from scratch by the same code.

Layer decay, drop path, mixup, CutMix, RandAugment, random erasing and averaged weights are timm's.
Letters: B images, C channels, H x W pixels, K classes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.data.mixup import Mixup, mixup_target
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import RECIPES, FineTune
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.randaugment import AugmentedLoader, lent_randomness, seed_of
from lcmae_core.data.splits import Source
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.linear import use_quick_linears
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.machine import pick_device
from lcmae_core.training.downstream import Origin, Task, crop_loader, evaluate, judge
from lcmae_core.training.methods import Terms


class Mixed(NamedTuple):
    """Images and the share of every class in each."""

    images: Float[Tensor, "B C H W"]
    targets: Float[Tensor, "B K"]


def build_classifier(encoder: Encoder, classes: int, recipe: FineTune, seed: int = 0) -> VisionTransformer:
    """timm's ViT with the encoder's weights: mean of the patch tokens -> LayerNorm -> head N(0, head_std), bias 0.

    The encoder's last norm is left out, as published: the new LayerNorm comes after the mean. Block b of L drops its
    two branches with probability drop_path * b / (L - 1). Positions start as the encoder's, and are trained.
    """
    first: Any = encoder.blocks[0]
    model = VisionTransformer(
        img_size=encoder.image_size, patch_size=encoder.patch, in_chans=encoder.in_chans, num_classes=classes,
        global_pool="avg", fc_norm=True, embed_dim=encoder.embed_dim, depth=len(encoder.blocks),
        num_heads=first.attn.num_heads, mlp_ratio=first.mlp.fc1.out_features / encoder.embed_dim,
        drop_path_rate=recipe.drop_path, weight_init="skip",
    )  # fmt: skip
    found = model.load_state_dict(encoder.state_dict(), strict=False)
    new = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    if set(found.missing_keys) != new or set(found.unexpected_keys) != {"norm.weight", "norm.bias"}:
        odd = sorted((set(found.missing_keys) ^ new) | set(found.unexpected_keys))[0]
        raise LcmaeError(f"key: got an encoder that differs in {odd!r}, expected a plain ViT with a class token")
    head: Any = model.head
    nn.init.trunc_normal_(head.weight, std=recipe.head_std, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(head.bias)
    use_quick_linears(model)
    return model


def build_adamw(model: VisionTransformer, recipe: FineTune) -> torch.optim.AdamW:
    """AdamW with timm's layer decay d: the rate of block b of L (0-based) is scaled by d^(L - b), that of patch
    embedding, CLS and positions by d^(L + 1), that of the last norm and the head by 1.

    No weight decay on 1-D parameters, CLS and positions.
    """
    groups = param_groups_layer_decay(
        model, recipe.weight_decay, no_weight_decay_list=model.no_weight_decay(), layer_decay=recipe.layer_decay
    )
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), fused=True)


def mix_batch(batch: Batch, recipe: FineTune, classes: int, seed: int, step: int) -> Mixed:
    """timm's mixup or CutMix of a batch with itself reversed, a pure function of (seed, step); smoothed targets.

    One of the two at even odds where both are on. A label is 1 - s + s / K for its class and s / K for the others.

    Raises:
        LcmaeError: an odd number of images, which cannot be paired.
    """
    assert batch.labels is not None
    if not recipe.mixup and not recipe.cutmix:
        return Mixed(batch.images, mixup_target(batch.labels, classes, 1.0, recipe.smoothing))
    if len(batch.images) % 2:
        raise LcmaeError(f"batch_size: got {len(batch.images)}, expected an even number (mixup pairs the images)")
    mixer = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=classes)
    with lent_randomness(seed_of(seed, "mixup", step)):
        return Mixed(*mixer(batch.images.clone(), batch.labels))  # timm mixes in place


def fine_tune(
    origin: Origin, recipe: FineTune | None = None, *, settings: Settings | None = None, resume: bool = True
) -> Evaluation:
    """Train all weights on labels once, by default with v2's recipe; `settings` say data, seed and runtime, by default
    the origin's.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
        NonFiniteLossError: the loss became NaN or infinite.
        Stopped: SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    recipe, settings = recipe or RECIPES["v2"], settings or origin.settings
    device = pick_device(settings.runtime.device)

    def prepare(encoder: Encoder, source: Source, classes: int) -> Task:
        model = build_classifier(encoder, classes, recipe, settings.seed).to(device)
        forward = torch.compile(model) if settings.runtime.compile else model
        average = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
        backward = _backward(forward, recipe, classes, settings.seed, device)
        batches = training_batches(settings, recipe, source)
        return Task(model.train(), build_adamw(model, recipe), batches, backward, average, recipe.clip_grad)

    def held_out(task: Task, encoder: Encoder, loader: Loader) -> Predictions:
        classifier = task.judged.eval()
        return judge(lambda batch: classifier(batch.images), loader)

    return evaluate(origin, recipe, settings, prepare, held_out, resume=resume)


def from_scratch(settings: Settings, recipe: FineTune | None = None, *, resume: bool = True) -> Evaluation:
    """The supervised baseline: `fine_tune` of an untrained encoder, all its layers at one rate."""
    return fine_tune(Origin.untrained(settings), recipe or RECIPES["scratch"], resume=resume)


def training_batches(settings: Settings, recipe: FineTune, source: Source) -> Callable[[int, int], Iterator[Batch]]:
    """Augmented in worker processes; on the device where the recipe has neither RandAugment nor erasing."""
    if recipe.rand_augment is None and not recipe.erase:
        return crop_loader(settings, recipe, source).batches
    device, runtime = pick_device(settings.runtime.device), settings.runtime
    return AugmentedLoader(
        source.train, settings.data, recipe, seed=settings.seed, device=device, workers=runtime.workers
    ).batches


def _backward(
    forward: Callable[..., Any], recipe: FineTune, classes: int, seed: int, device: torch.device
) -> Callable[[Batch, int], Terms]:
    loss_of, parts = SoftTargetCrossEntropy(), recipe.accumulate

    def backward(batch: Batch, step: int) -> Terms:
        """The mean over micro-batches; drop path draws from a generator that starts anew at each step."""
        mixed, losses = mix_batch(batch, recipe, classes, seed, step), []
        with lent_randomness(seed_of(seed, "drop path", step), device):
            for images, targets in zip(mixed.images.chunk(parts), mixed.targets.chunk(parts)):
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    logits = forward(images)
                loss = loss_of(logits.float(), targets)
                (loss / parts).backward()
                losses.append(loss.detach())
        return {"total": torch.stack(losses).mean()}

    return backward
