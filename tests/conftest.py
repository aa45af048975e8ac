"""Annotated shapes and types are checked on every call in the tests; a worker of pytest-xdist uses one thread."""

import os

import jaxtyping
import pytest

jaxtyping.install_import_hook(["lcmae_core.models", "lcmae_core.losses", "lcmae_core.analysis"], "beartype.beartype")

import torch  # noqa: E402

from lcmae_core.store.leaving import begin_lightly  # noqa: E402

begin_lightly()
if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with seed 0."""
    return torch.Generator().manual_seed(0)
