"""Held-out images come with the names of their files, in the order of the images."""

import numpy as np
import pytest
from PIL import Image

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.training.held_out import examples, named_examples


def test_every_image_has_its_own_name(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((40, 40, 3), 20 * i, np.uint8)).save(tmp_path / f"shade_{20 * i}.png")
    settings = replace(profile("smoke"), source=f"folder:{tmp_path}")
    named = named_examples(settings, 12)
    assert len(named.names) == len(named.batch.images) > 0
    shades = [int(name.partition("_")[2].removesuffix(".png")) for name in named.names]
    order = np.argsort([float(image.mean()) for image in named.batch.images])
    assert np.array_equal(order, np.argsort(shades)), "names stand beside their images"
    assert np.array_equal(examples(settings, 12).index, named.batch.index)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(LcmaeError, match="folder"):
        named_examples(replace(profile("smoke"), source=f"folder:{tmp_path / 'gone'}"), 2)
