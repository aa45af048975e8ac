"""What torch refuses on a device without values although it could do it."""

import sys
from contextlib import nullcontext

import pytest
import torch


@pytest.fixture
def meta_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meta` has no autocast (off here anyway), no pinned memory, and is not on AdamW's list of fused devices, though
    it has the kernel."""
    autocast = torch.autocast
    monkeypatch.setattr(
        torch, "autocast", lambda kind, *a, **k: nullcontext() if kind == "meta" else autocast(kind, *a, **k)
    )
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None)
