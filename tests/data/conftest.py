"""The real photographs that tests use when they lie beside the repository."""

from pathlib import Path

import pytest

IMAGENETTE = Path(__file__).parents[2].parent / "shared/data/imagenette-128"


@pytest.fixture
def imagenette() -> str:
    if not IMAGENETTE.is_dir():
        pytest.skip(f"{IMAGENETTE.name} is not beside the repository")
    return f"parquet:{IMAGENETTE}"
