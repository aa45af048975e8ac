"""Masks keep int(N * (1 - ratio)) patches, those of least noise in ascending order of noise; `restore` undoes the
shuffle; `hidden` is the complement of `keep`; units expand cells row-major on any grid; bad input is named."""

import pytest
import torch

from lcmae_core.config import LcmaeError
from lcmae_core.models.masking import mask_from_hidden, num_kept, random_mask, stack_views


@pytest.mark.parametrize(("cells", "ratio", "kept"), [(196, 0.75, 49), (196, 0.9, 19), (100, 0.9, 9), (256, 0.75, 64)])
def test_kept_patches_are_truncated_as_in_the_public_code(cells, ratio, kept):
    mask = random_mask(2, cells, ratio, generator=torch.Generator().manual_seed(0))
    assert num_kept(cells, ratio) == kept
    assert mask.keep.shape == (2, kept)
    assert mask.hidden.sum(dim=1).tolist() == [cells - kept] * 2


def test_the_least_noise_is_kept_in_ascending_order():
    noise = torch.tensor([[0.7, 0.1, 0.9, 0.2], [0.3, 0.4, 0.0, 0.8]])
    mask = random_mask(2, 4, 0.5, noise=noise)
    assert mask.keep.tolist() == [[1, 3], [2, 0]]
    assert mask.restore.tolist() == [[2, 0, 3, 1], [1, 2, 0, 3]]
    assert mask.hidden.tolist() == [[True, False, True, False], [False, True, False, True]]


@pytest.mark.parametrize(("unit", "grid"), [(1, (4, 6)), (2, (4, 6)), (2, (6, 4)), (3, (6, 6))])
def test_restore_inverts_the_shuffle_and_hidden_complements_keep(unit, grid, generator):
    n = grid[0] * grid[1]
    mask = random_mask(3, n, 0.6, unit=unit, grid=grid, generator=generator)
    for keep, restore, hidden in zip(*mask):
        order = restore.argsort()
        assert torch.equal(order[restore], torch.arange(n))
        assert torch.equal(order[: len(keep)], keep)
        assert sorted(keep.tolist()) == (~hidden).nonzero().flatten().tolist()


def test_a_unit_expands_cells_row_major_on_a_non_square_grid():
    # 4 x 6 patches, cells of 2 x 2: 2 x 3 cells. Noise keeps cell (1, 2), then cell (0, 0).
    noise = torch.tensor([[0.2, 0.9, 0.8, 0.7, 0.6, 0.1]])
    mask = random_mask(1, 24, 0.6, noise=noise, unit=2, grid=(4, 6))
    assert mask.keep.tolist() == [[16, 17, 22, 23, 0, 1, 6, 7]]
    coarse = mask.hidden.reshape(2, 2, 3, 2)
    assert torch.equal(coarse[:, 0, :, 0], torch.tensor([[False, True, True], [True, True, False]]))
    assert (coarse == coarse[:, :1, :, :1]).all()


def test_masks_are_a_function_of_the_generator_and_differ_between_images():
    first, again, other = (random_mask(2, 64, 0.75, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.hidden, again.hidden)
    assert not torch.equal(first.hidden, other.hidden)
    assert not torch.equal(first.hidden[0], first.hidden[1])


def test_every_patch_is_hidden_equally_often(generator):
    share = random_mask(4000, 16, 0.75, generator=generator).hidden.float().mean(dim=0)
    assert (share - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_a_drawn_mask_hides_exactly_what_was_drawn():
    hidden = torch.tensor([[True, False, True, False, False], [False, True, True, False, False]])
    mask = mask_from_hidden(hidden)
    assert torch.equal(mask.hidden, hidden)
    assert mask.keep.tolist() == [[1, 3, 4], [0, 3, 4]]


def test_views_are_stacked_view_by_view(generator):
    one, two = (random_mask(2, 16, 0.5, generator=generator) for _ in range(2))
    both = stack_views(one, two)
    for stacked, a, b in zip(both, one, two):
        assert torch.equal(stacked, torch.cat([a, b]))


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: random_mask(1, 16, 0.0), "mask ratio: got 0.0, expected above 0 and below 1"),
        (lambda: random_mask(1, 16, 1.0), "mask ratio: got 1.0, expected above 0 and below 1"),
        (lambda: random_mask(1, 4, 0.9), "at least one visible and one hidden of 4 cells"),
        (lambda: random_mask(2, 16, 0.5, noise=torch.rand(2, 15)), r"noise: got shape \(2, 15\), expected \(2, 16\)"),
        (lambda: random_mask(2, 16, 0.5, unit=2, noise=torch.rand(2, 16)), r"expected \(2, 4\)"),
        (lambda: random_mask(1, 16, 0.5, unit=3), "mask unit: got 3, expected a divisor of the 4x4 grid"),
        (lambda: random_mask(1, 16, 0.5, grid=(3, 5)), "grid: got 3x5, expected rows . columns = 16"),
        (lambda: mask_from_hidden(torch.tensor([[True, False], [True, True]])), "hidden: got 1 to 2 hidden of 2"),
        (lambda: mask_from_hidden(torch.zeros(1, 4, dtype=torch.bool)), "hidden: got 0 to 0 hidden of 4"),
    ],
)  # fmt: skip
def test_bad_input_is_named_in_one_line(call, line):
    with pytest.raises(LcmaeError, match=line) as error:
        call()
    assert "\n" not in str(error.value)
