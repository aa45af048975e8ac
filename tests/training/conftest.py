"""Settings so small that a run takes a second, and a stop in the middle of one."""

import os
import signal
from contextlib import contextmanager

import pytest

from lcmae_core.config import profile, replace
from lcmae_core.training import log
from tests.data.made_pictures import few_pictures

TINY = {
    "image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
    "decoder_heads": 2, "projector_dim": 16, "batch_size": 4, "steps": 8, "checkpoint_every": 3, "snapshots": 3,
    "log_every": 1, "device": "cpu", "local_crops": 2, "local_size": 16, "dino_dim": 32, "dino_hidden": 24,
    "dino_bottleneck": 12,
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path):
    return replace(profile("smoke"), {**TINY, "source": few_pictures(), "out": str(tmp_path)})


@pytest.fixture
def terminated_at(monkeypatch):
    """A context in which this process gets SIGTERM at a step of a downstream training."""

    @contextmanager
    def at(step):
        add, calls = log.Window.add, []

        def stop(self, terms):
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGTERM)
            add(self, terms)

        with monkeypatch.context() as patch:
            patch.setattr(log.Window, "add", stop)
            yield

    return at
