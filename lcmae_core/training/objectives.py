"""What a run minimises, by method: one small object each, behind one interface that the loop calls.

Letters (CONTRIBUTING.md): B images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.config import Settings
from lcmae_core.data.cache import cache_of
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.randaugment import AugmentedLoader, Pictures, lent_randomness, seed_of
from lcmae_core.data.splits import Source
from lcmae_core.data.views import Views, crop_pair, multi_crop
from lcmae_core.models.build import AnyModel
from lcmae_core.models.mae import MAE, build_mae
from lcmae_core.models.masking import no_mask
from lcmae_core.models.reference import Dino, Heads, Supervised, build_dino, build_supervised, class_count
from lcmae_core.models.siamese import Siamese, build_siamese
from lcmae_core.training.autoencoder import block_loss
from lcmae_core.training.distributed import mean_over_ranks, rows_of_all, share_of
from lcmae_core.training.held_out import averaged, held_out
from lcmae_core.training.masked import forward_views, loss_terms, view_masks
from lcmae_core.training.mixing import mix_batch
from lcmae_core.training.siamese import siamese_terms
from lcmae_core.training.steps import Terms

M = TypeVar("M", bound=AnyModel)


class Objective(ABC, Generic[M]):
    """What the loop needs to know of a method. `progress` is the share of the training done: step / total, in [0, 1).

    All that a resumed run needs lies in the model's state dict; an objective remembers nothing from step to step.
    """

    def __init__(self, settings: Settings, source: Source):
        self.settings, self.source = settings, source

    @property
    def crops(self) -> tuple[Views, ...]:
        """What the loader cuts from an image, where that is more than one crop."""
        return ()

    def loader(self, device: torch.device) -> Loader | AugmentedLoader:
        """Training batches on the device."""
        settings, runtime, optim = self.settings, self.settings.runtime, self.settings.optim
        return Loader(
            self.source.train, settings.data, seed=settings.seed, batch_size=optim.batch_size,
            device=device, device_cache_gb=runtime.device_cache_gb, workers=runtime.workers, crops=self.crops,
            progress=runtime.progress, cache=cache_of(runtime), share=share_of(optim.batch_size, optim.accum_steps),
        )  # fmt: skip

    @abstractmethod
    def build(self) -> M:
        """The model on the CPU, its weights drawn from the seed alone."""

    @abstractmethod
    def terms(self, model: M, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """The terms of a (micro-)batch; `forward` is the model's forward pass, perhaps compiled."""

    def after_backward(self, model: M, progress: float) -> None:
        """What is done to the gradients of a whole step; nothing for most methods."""

    def after_step(self, model: M, progress: float) -> None:
        """What follows the optimiser's step; nothing for most methods."""

    @abstractmethod
    def held_out(self, model: M, loader: Loader) -> dict[str, float]:
        """Measurements on held-out images, averaged over them, and their number; draws nothing."""

    def _run(self, forward: Callable[..., Any], *inputs: Any, device: torch.device) -> Any:
        """The forward pass in the precision of the settings; losses are computed outside, in float32."""
        with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.optim.precision == "bf16"):
            return forward(*inputs)


class Masked(Objective[MAE]):
    """MAE and LC-MAE: the weighted sum of Eq. 1, 5 and 6."""

    def build(self) -> MAE:
        """Encoder, decoder, and the projector where a loss needs it."""
        return build_mae(self.settings)

    def terms(self, model: MAE, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """The losses that have a weight, under the batch's own masks."""
        loss, images = self.settings.loss, batch.images
        masks = view_masks(self.settings, batch, loss.num_views)
        output = self._run(forward_views, forward, images, masks, device=images.device)
        # means over the terms of all ranks: one whose views hide few patches in common must not weigh more
        losses = loss_terms(output, images, masks, self.settings.model.patch_size, loss, mean_over_ranks)
        return {name: value for name, value in losses._asdict().items() if value is not None}

    def held_out(self, model: MAE, loader: Loader) -> dict[str, float]:
        """All three losses, whatever was optimised."""
        return held_out(model, self.settings, loader)


class Autoencoding(Objective[MAE]):
    """The autoencoder of v2 Fig. 7: nothing is masked, and every token regresses the block of patches around it."""

    def build(self) -> MAE:
        """Encoder, and a decoder that predicts a block for every patch."""
        return build_mae(self.settings)

    def terms(self, model: MAE, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """The mean squared error of the blocks, which is all there is."""
        error = self._error(forward, batch)
        return {"total": error, "reconstruction": error}

    def held_out(self, model: MAE, loader: Loader) -> dict[str, float]:
        """The same on central views; not comparable between blocks, nor with the error of hidden patches."""
        return _averaged(loader, lambda batch: {"reconstruction": self._error(model, batch)})

    def _error(self, forward: Callable[..., Any], batch: Batch) -> Tensor:
        loss, images = self.settings.loss, batch.images
        everything = no_mask(len(images), self.settings.num_patches, images.device)
        output = self._run(forward, images, everything, device=images.device)
        patch, block = self.settings.model.patch_size, self.settings.predicted_block
        return block_loss(output.pred, images, patch, block, norm_pix=loss.norm_pix, reduction=loss.reduction)


class DinoObjective(Objective[Dino]):
    """DINO: the student's softmax follows the centred, sharpened softmax of its own moving average, across crops."""

    def __init__(self, settings: Settings, source: Source):
        super().__init__(settings, source)
        self._teacher: list[Tensor] = []  # outputs of the micro-batches of one step, which move the centre after it

    @property
    def crops(self) -> tuple[Views, ...]:
        """Two global crops and the local ones."""
        return multi_crop(self.settings.data, self.settings.dino, self.settings.seed)

    def build(self) -> Dino:
        """Student and teacher, equal at first."""
        return build_dino(self.settings)

    def terms(self, model: Dino, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """The loss, and how far the teacher is from collapse (`_diagnosed`)."""
        heads = self._run(forward, batch.crops, device=batch.images.device)
        self._teacher.append(rows_of_all(torch.stack(heads.teacher).float(), dim=1))  # (teachers, B, prototypes)
        return self._diagnosed(model, heads, self.temperature(progress), spread_of(self._teacher[-1]))

    def after_backward(self, model: Dino, progress: float) -> None:
        """Prototypes rest at first: without a gradient no optimiser moves them. They have one until here, because a
        forward pass would be compiled anew at the step where they begin to need it."""
        if progress < self.settings.dino.prototypes_frozen:
            model.student_head.last_layer.weight_v.grad = None

    def after_step(self, model: Dino, progress: float) -> None:
        """The teacher's weights follow the student's, and the centre follows the teacher's outputs, once a step."""
        model.follow(self.momentum(progress))
        model.move_centre(torch.cat(self._teacher, dim=1))
        self._teacher.clear()

    def held_out(self, model: Dino, loader: Loader) -> dict[str, float]:
        """The terms on multi-crops drawn from (seed, image) alone, at the last temperature."""

        def measure(batch: Batch) -> Terms:
            heads = model(batch.crops)
            return self._diagnosed(model, heads, self.temperature(1.0), spread_of(torch.stack(heads.teacher).float()))

        return _averaged(loader, measure)

    def temperature(self, progress: float) -> float:
        """Of the teacher: from teacher_temp_start linearly to teacher_temp in teacher_temp_warmup of the steps."""
        dino = self.settings.dino
        share = min(1.0, progress / dino.teacher_temp_warmup) if dino.teacher_temp_warmup else 1.0
        return dino.teacher_temp_start + (dino.teacher_temp - dino.teacher_temp_start) * share

    def momentum(self, progress: float) -> float:
        """Of the teacher's weights: half a cosine from teacher_momentum to 1."""
        return 1 - (1 - self.settings.dino.teacher_momentum) * (1 + math.cos(math.pi * progress)) / 2

    @staticmethod
    def _diagnosed(model: Dino, heads: Heads, temperature: float, teacher_std: Tensor) -> Terms:
        """total = teacher_entropy + kl: the mean entropy of P_t in nats (log of their number if uniform, 0 if one
        prototype takes all) and the mean KL(P_t || P_s), 0 if all images look alike. teacher_std: deviation of the
        teacher's raw outputs over images and crops, mean over prototypes; it too falls to 0 in a collapse."""
        total = model.loss(heads, temperature)
        with torch.no_grad():
            entropy = torch.special.entr(model.teacher_probabilities(heads, temperature)).sum(dim=-1).mean()
        # a cross-entropy is entropy plus KL: the third comes for nothing
        return {"total": total, "teacher_entropy": entropy, "kl": total.detach() - entropy, "teacher_std": teacher_std}


def spread_of(teacher: Float[Tensor, "teachers B prototypes"]) -> Float[Tensor, ""]:
    """Deviation of the teacher's outputs over images and crops, mean over prototypes."""
    return teacher.flatten(0, 1).std(dim=0, correction=0).mean()


class SupervisedObjective(Objective[Supervised]):
    """Cross-entropy of the source's labels, with the augmentation of the settings `Supervision`.

    What is drawn for a (micro-)batch, its mixing and its dropped paths, is a function of the seed and of the place of
    its first image, so that a resumed run is exact.
    """

    def loader(self, device: torch.device) -> Loader | AugmentedLoader:
        """Augmented in worker processes; as for any method where there is neither RandAugment nor erasing."""
        data, wanted = self.settings.data, self.settings.supervision
        runtime, optim = self.settings.runtime, self.settings.optim
        if wanted.rand_augment is None and not wanted.erase:
            return super().loader(device)
        views = Views(self.settings.seed, data.image_size, data.crop_scale, data.crop_ratio, data.flip)
        pictures = Pictures(self.source.train, views, data.channels, wanted.rand_augment, wanted.erase)
        return AugmentedLoader(
            pictures, optim.batch_size, device=device, workers=runtime.workers,
            device_cache_gb=runtime.device_cache_gb, share=share_of(optim.batch_size, optim.accum_steps),
            cache=cache_of(runtime),
        )  # fmt: skip

    def build(self) -> Supervised:
        """A classifier for the source's classes."""
        return build_supervised(self.settings, class_count(self.settings, self.source))

    def terms(self, model: Supervised, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """Cross-entropy in nats with the targets, and the share of the batch whose largest target is found."""
        wanted, device = self.settings.supervision, batch.images.device
        if not wanted.mixes and not wanted.drop_path:
            return self._judged(self._run(forward, batch.images, device=device), batch)
        seed = self.settings.seed
        images, targets = mix_batch(batch, wanted, model.head.out_features, seed)
        with lent_randomness(seed_of(seed, "drop path", *batch.first), device):
            logits = self._run(forward, images, device=device).float()
        right = (logits.argmax(dim=1) == targets.argmax(dim=1)).float().mean()
        return {"total": SoftTargetCrossEntropy()(logits, targets), "accuracy": right}

    def held_out(self, model: Supervised, loader: Loader) -> dict[str, float]:
        """Cross-entropy and accuracy on central views, nothing dropped."""
        model.eval()  # no other method has a layer that drops anything
        means = _averaged(loader, lambda batch: self._judged(model(batch.images), batch))
        model.train()
        return means

    @staticmethod
    def _judged(logits: Tensor, batch: Batch) -> Terms:
        assert batch.labels is not None
        right = (logits.argmax(dim=1) == batch.labels).float().mean()
        return {"total": F.cross_entropy(logits.float(), batch.labels), "accuracy": right}


class SiameseObjective(Objective[Siamese]):
    """The Siamese network of v1, as reconstructed in `models.siamese`: L_cross over positives, L_in in each crop."""

    @property
    def crops(self) -> tuple[Views, ...]:
        """Two crops like MAE's."""
        return crop_pair(self.settings.data, self.settings.seed)

    def build(self) -> Siamese:
        """Encoder and projector; the average between them has no weights."""
        return build_siamese(self.settings)

    def terms(self, model: Siamese, forward: Callable[..., Any], batch: Batch, progress: float) -> Terms:
        """The terms of `siamese_terms`."""
        output = self._run(forward, torch.cat(batch.crops), device=batch.images.device)
        return siamese_terms(model, output, batch, self.settings, mean_over_ranks)

    def held_out(self, model: Siamese, loader: Loader) -> dict[str, float]:
        """The same on pairs of crops drawn from (seed, image) alone."""

        def measure(batch: Batch) -> Terms:
            return siamese_terms(model, model(torch.cat(batch.crops)), batch, self.settings)

        return _averaged(loader, measure)


OBJECTIVES: dict[str, type[Objective]] = {
    "mae": Masked, "ae": Autoencoding, "dino": DinoObjective, "supervised": SupervisedObjective,
    "siamese": SiameseObjective,
}  # fmt: skip
"""Method -> its objective."""


def mean_terms(parts: list[Terms]) -> Terms:
    """The mean of each term over micro-batches, without gradient."""
    return {name: torch.stack([part[name] for part in parts]).detach().mean() for name in parts[0]}


def _averaged(loader: Loader, measure: Callable[[Batch], Terms]) -> dict[str, float]:
    """Means over the held-out images, the total as "loss", and their number."""
    return {"loss" if name == "total" else name: value for name, value in averaged(loader, measure).items()}
