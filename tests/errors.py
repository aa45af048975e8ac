"""What a user reads when something is wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from lcmae_core.config import LcmaeError


def line_of(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one line of the error that a call ends with."""
    with pytest.raises(LcmaeError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)
