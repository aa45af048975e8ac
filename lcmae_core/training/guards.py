"""Guards around the loop: a loss that is no number, and signals that ask for an orderly stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lcmae_core.config import LcmaeError
from lcmae_core.data.loader import Batch


class NonFiniteLossError(LcmaeError):
    """The loss became NaN or infinite: failed work, not a user's mistake."""

    exit_code = 1


class Stopped(SystemExit):
    """Training was asked to stop by a signal, after a checkpoint; the same command resumes."""


class LossGuard:
    """Stops at a loss that is no number, at most one step late.

    On CUDA a step's loss is read while the next step is already queued, so that the device never waits for the host;
    `settle` reads what is outstanding, and is called before anything is saved.
    """

    def __init__(self, device: torch.device):
        self._late = device.type == "cuda"
        self._pending: tuple[int, Batch, Tensor, torch.cuda.Event] | None = None

    def check(self, step: int, batch: Batch, loss: Tensor) -> None:
        """Look at this step's loss now (CPU, MPS), or at the step before it (CUDA).

        Raises:
            NonFiniteLossError: naming step and images.
        """
        if not self._late:
            return self._judge(step, batch, loss)
        self.settle()
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
        copy.copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(loss.device))
        self._pending = (step, batch, copy, event)
        return None

    def settle(self) -> None:
        """Judge the outstanding loss, if any."""
        if self._pending is not None:
            step, batch, loss, event = self._pending
            self._pending = None
            event.synchronize()
            self._judge(step, batch, loss)

    @staticmethod
    def _judge(step: int, batch: Batch, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            first = ", ".join(map(str, batch.index[:8].tolist()))
            raise NonFiniteLossError(
                f"loss: got {loss.item()} at step {step} (epoch {int(batch.epoch[0])}, images {first}, ...), "
                "expected a finite number; the last checkpoint is from before: lower base_lr or set clip_grad"
            )


def refuse_broken(step: int, model: nn.Module) -> None:
    """Look at every weight before any of them is saved: a gradient can be broken where the loss is not.

    Raises:
        NonFiniteLossError: a weight is NaN or infinite.
    """
    if not torch.stack([p.isfinite().all() for p in model.parameters()]).all():
        raise NonFiniteLossError(
            f"weights: got NaN or infinity after step {step}, expected finite numbers; "
            "the last checkpoint is from before: lower base_lr or set clip_grad"
        )


class _Handler:
    """A signal handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __call__(self, *_: object) -> None:
        self.asked.set()


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGUSR2 set (SLURM's preemption and time limit), in the main thread only.

    Inside another `stop_requests` it is that one's event, so that no request is lost between two trainings: one that
    begins after the request stops at its first step, and who began them sees it too.
    """
    outer, handler = signal.getsignal(signal.SIGTERM), _Handler()
    main = threading.current_thread() is threading.main_thread()
    if not main or isinstance(outer, _Handler):
        yield outer.asked if main and isinstance(outer, _Handler) else handler.asked
        return
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR2") if hasattr(signal, name)]
    before = {name: signal.signal(name, handler) for name in names}
    try:
        yield handler.asked
    finally:
        for name, earlier in before.items():
            signal.signal(name, earlier)
