"""Guards around the loop: a loss or a weight that is no number."""

import torch
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.loader import Batch
from lcmae_core.store.accelerator import Late, read_late
from lcmae_core.store.machine import device_memory, device_name
from lcmae_core.store.stopping import Stopped, stop_requests
from lcmae_core.training.distributed import mean_over_ranks
from lcmae_core.training.sharding import local

__all__ = ["LossGuard", "NonFiniteLossError", "Stopped", "refuse_broken", "refuse_too_large", "stop_requests"]


class NonFiniteLossError(LcmaeError):
    """The loss became NaN or infinite: failed work, not a user's mistake."""

    exit_code = 1


def refuse_too_large(settings: Settings, device: torch.device) -> None:
    """See before anything is read whether a batch's pictures can fit at all.

    Raises:
        LcmaeError: as float32 they take more memory than the device has.
    """
    memory, (height, width) = device_memory(device), settings.data.image_size
    image = 4 * settings.data.channels * height * width
    if memory is not None and settings.optim.batch_size * image > memory:
        raise LcmaeError(
            f"batch_size: got {settings.optim.batch_size}, whose pictures alone take "
            f"{settings.optim.batch_size * image / 1e9:,.0f} GB, expected at most {int(memory // image)}: "
            f"{device_name(device)} has {memory / 1e9:.0f} GB"
        )


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
