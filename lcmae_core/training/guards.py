"""Guards around the loop: a loss or a weight that is no number, a batch or a model that cannot fit."""

import torch
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.loader import Batch
from lcmae_core.store.accelerator import Late, read_late
from lcmae_core.store.cores import started_processes
from lcmae_core.store.machine import device_memory, device_name
from lcmae_core.store.stopping import Stopped, stop_requests
from lcmae_core.training.distributed import mean_over_ranks
from lcmae_core.training.sharding import local

__all__ = ["LossGuard", "NonFiniteLossError", "Stopped", "refuse_broken", "refuse_too_large", "stop_requests"]


class NonFiniteLossError(LcmaeError):
    """The loss became NaN or infinite: failed work, not a user's mistake."""

    exit_code = 1


def refuse_too_large(settings: Settings, device: torch.device) -> None:
    """See before anything is read whether a batch's pictures, the weights, and what a step keeps for its gradients can
    fit at all. Each is counted as less than it will be: what is refused cannot be trained.

    Raises:
        LcmaeError: one of them takes more memory than the device has.
    """
    if (memory := device_memory(device)) is None:
        return
    batch, (height, width) = settings.optim.batch_size, settings.data.image_size
    world = started_processes()  # a batch is shared among them
    parts = settings.optim.accum_steps * world
    has = f"{device_name(device)} has {memory / 1e9:.0f} GB"
    image, kept = 4 * settings.data.channels * height * width, kept_bytes(settings)
    for each, words in ((image, "whose pictures alone take"), (kept / parts, "whose gradients alone need")):
        if batch * each > memory:
            got = f"batch_size: got {batch}, {words} {batch * each / 1e9:,.0f} GB"
            raise LcmaeError(f"{got}, expected at most {int(memory // each)}: {has}")
    if (weights := weight_bytes(settings) / (world if settings.runtime.fsdp else 1)) > memory:
        model = settings.model
        raise LcmaeError(
            f"width, depth: got {model.width} and {model.depth}, whose weights, gradients and AdamW's means take "
            f"{weights / 1e9:,.0f} GB, expected a smaller encoder: {has}"
        )


def weight_bytes(settings: Settings) -> float:
    """Of the matrices of the encoder's blocks (4 D^2 of attention, 2 r D^2 of the MLP): float32, each beside its
    gradient and the two means of AdamW."""
    model = settings.model
    return 16 * model.depth * (4 + 2 * model.mlp_ratio) * float(model.width) ** 2


def kept_bytes(settings: Settings) -> float:
    """Of an image in a training step: what the encoder's blocks keep for the backward pass, at least. A token leaves
    in each block q, k, v, what attention gives (4 D), and the MLP's hidden layer (r D)."""
    model, masking = settings.model, settings.masking
    tokens: float = settings.num_patches
    if settings.method == "mae":
        tokens *= settings.loss.num_views * (1 if masking.erased else 1 - masking.mask_ratio)
    number = 2 if settings.optim.precision == "bf16" else 4
    return number * tokens * model.depth * model.width * (4 + model.mlp_ratio)


class LossGuard:
    """Stops at a loss that is no number, at most one step late.

    On CUDA a step's loss is read while the next step is already queued, so that the device never waits for the host;
    `settle` reads what is outstanding, and is called before anything is saved.
    """

    def __init__(self) -> None:
        self._pending: tuple[int, Batch, Late, float] | None = None

    def check(self, step: int, batch: Batch, loss: Tensor, rate: float) -> None:
        """Look at this step's loss now (CPU, MPS), or at the step before it (CUDA).

        Raises:
            NonFiniteLossError: naming step, images and learning rate.
        """
        self.settle()
        late = read_late(loss)
        if late is None:
            return self._judge(step, batch, loss, rate)
        self._pending = (step, batch, late, rate)
        return None

    def settle(self) -> None:
        """Judge the outstanding loss, if any."""
        if self._pending is not None:
            step, batch, late, rate = self._pending
            self._pending = None
            late.wait()
            self._judge(step, batch, late.value, rate)

    @staticmethod
    def _judge(step: int, batch: Batch, loss: Tensor, rate: float) -> None:
        if not torch.isfinite(loss):
            first = ", ".join(map(str, batch.index[:8].tolist()))
            raise NonFiniteLossError(
                f"loss: got {loss.item()} at step {step} (epoch {int(batch.epoch[0])}, images {first}, ..., "
                f"learning rate {rate:.3g}), "
                "expected a finite number; the last checkpoint is from before: lower base_lr or set clip_grad"
            )


def refuse_broken(step: int, model: nn.Module) -> None:
    """Look at every weight before any of them is saved: a gradient can be broken where the loss is not.

    Raises:
        NonFiniteLossError: a weight is NaN or infinite.
    """
    fine = torch.stack([local(p).isfinite().all() for p in model.parameters()]).all()
    if not mean_over_ranks(fine.double()) == 1:  # of every rank, where each has its rows alone
        raise NonFiniteLossError(
            f"weights: got NaN or infinity after step {step}, expected finite numbers; "
            "the last checkpoint is from before: lower base_lr or set clip_grad"
        )
