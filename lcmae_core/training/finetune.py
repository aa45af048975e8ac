"""Fine-tuning by the public MAE recipe, and the supervised baseline from scratch by the same code.

Layer decay, drop path, mixup, CutMix, RandAugment, random erasing and averaged weights are timm's.
Letter: L blocks.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.loss import SoftTargetCrossEntropy
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import RECIPES, FineTune
from lcmae_core.data.cache import cache_of
from lcmae_core.data.loader import Batch
from lcmae_core.data.randaugment import AugmentedLoader, Pictures, lent_randomness, seed_of
from lcmae_core.data.splits import Source
from lcmae_core.data.views import Views
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.linear import use_quick_linears
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.machine import pick_device
from lcmae_core.training.distributed import copied, gradients_later, mean_terms_over_ranks, ranks, share_of
from lcmae_core.training.downstream import Examined, Origin, Training, crop_loader, evaluate, predict, rates_of
from lcmae_core.training.micro_batches import micro_batches
from lcmae_core.training.mixing import mix_batch
from lcmae_core.training.steps import Steps, Terms


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
    keys = model.load_state_dict(encoder.state_dict(), strict=False)
    new = {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    if set(keys.missing_keys) != new or set(keys.unexpected_keys) != {"norm.weight", "norm.bias"}:
        odd = sorted((set(keys.missing_keys) ^ new) | set(keys.unexpected_keys))[0]
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


def fine_tune(
    origin: Origin, recipe: FineTune | None = None, *, settings: Settings | None = None, resume: bool = True
) -> Evaluation:
    """Train all weights on labels once, by default with v2's recipe; `settings` say data, seed and runtime, by default
    the origin's.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
        NonFiniteLossError: the loss became NaN or infinite.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    recipe, settings = recipe or RECIPES["v2"], settings or origin.settings
    device = pick_device(settings.runtime.device)

    def prepare(subject: Examined) -> Training:
        held_out = subject.held_out  # a broken file shows before training, not after
        model = build_classifier(subject.encoder, subject.classes, recipe, settings.seed).to(device)
        forward: Any = copied(model)
        forward = torch.compile(forward) if settings.runtime.compile else forward
        average = None if recipe.ema is None else ModelEmaV3(model, decay=recipe.ema)
        backward = mixed_backward(forward, recipe, subject.classes, settings.seed, device)
        share_of(recipe.batch_size, recipe.accum_steps)  # refuses what would make micro-batches of unequal size
        batches, optimizer = training_batches(settings, recipe, subject.source), build_adamw(model, recipe)
        rate = rates_of(optimizer, recipe, subject.source)
        steps = Steps(model.train(), optimizer, batches, rate, backward, recipe.clip_grad, average=average)

        def predictions(trained: nn.Module) -> Predictions:
            return predict(lambda batch: trained(batch.images), held_out)

        return Training(steps, predictions)

    return evaluate(origin, recipe, settings, prepare, resume=resume)


def from_scratch(settings: Settings, recipe: FineTune | None = None, *, resume: bool = True) -> Evaluation:
    """The supervised baseline: `fine_tune` of an untrained encoder, all its layers at one rate."""
    return fine_tune(Origin.untrained(settings), recipe or RECIPES["scratch"], resume=resume)


def training_batches(settings: Settings, recipe: FineTune, source: Source) -> Callable[[int, int], Iterator[Batch]]:
    """Augmented in worker processes; on the device where the recipe has neither RandAugment nor erasing."""
    if recipe.rand_augment is None and not recipe.erase:
        return crop_loader(settings, recipe, source).batches
    views = Views(settings.seed, settings.data.image_size, recipe.crop_scale, recipe.crop_ratio, recipe.flip)
    pictures = Pictures(source.train, views, settings.data.channels, recipe.rand_augment, recipe.erase)
    return AugmentedLoader(
        pictures, recipe.batch_size, device=pick_device(settings.runtime.device), workers=settings.runtime.workers,
        device_cache_gb=settings.runtime.device_cache_gb, share=share_of(recipe.batch_size),
        cache=cache_of(settings.runtime),
    ).batches  # fmt: skip


def mixed_backward(
    forward: nn.Module, recipe: FineTune, classes: int, seed: int, device: torch.device
) -> Callable[[Batch, int], Terms]:
    """What a step of fine-tuning does of a batch: mixes it, and leaves the gradients of the loss in the weights."""
    loss_of, parts = SoftTargetCrossEntropy(), recipe.accum_steps

    def backward(batch: Batch, step: int) -> Terms:
        """The mean over micro-batches; drop path draws from a generator that starts anew at each step and rank."""
        images, targets = mix_batch(batch, recipe, classes, seed, step)
        losses: list[Tensor] = []
        with lent_randomness(seed_of(seed, "drop path", step, ranks().number), device):
            for part, wanted in micro_batches(zip(images.chunk(parts), targets.chunk(parts)), forward):
                with gradients_later(forward, len(losses) < parts - 1):
                    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                        logits = forward(part)
                    loss = loss_of(logits.float(), wanted)
                    (loss / parts).backward()
                losses.append(loss.detach())
        return mean_terms_over_ranks({"total": torch.stack(losses).mean()})

    return backward
