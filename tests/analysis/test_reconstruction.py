"""A perfect prediction is painted exactly, whatever the target (norm-pix or pixels, grey or colour, hidden patches or
whole images); statistics guessed from neighbours are the true ones where all patches are alike, and see no hidden
patch; PSNR counts hidden patches alone."""

import pytest
import torch

from lcmae_core.analysis.reconstruction import neighbour_statistics, psnr, rebuild_whole, reconstruct
from lcmae_core.config import LcmaeError, Model
from lcmae_core.data.augment import denormalize, normalize
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.masking import random_mask
from lcmae_core.models.patches import patch_statistics, patchify, unpatchify

SMALL = Model(patch_size=4, width=16, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
PATCH, SIDE, GRID = 4, 16, (4, 4)


class Perfect(MAE):
    """A model that predicts the target of Eq. 1 exactly: patches of normalised images, norm-pix or as they are."""

    norm_pix = True

    def forward(self, images, mask):
        """The target, worked out without the code under test."""
        target = patchify(images, PATCH)
        if self.norm_pix:
            mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            target = (target - mean) / (var + 1e-6).sqrt()
        return super().forward(images, mask)._replace(pred=target)


def perfect(channels, norm_pix):
    model = initialize(Perfect(SMALL, (SIDE, SIDE), channels), torch.Generator().manual_seed(1)).eval()
    model.norm_pix = norm_pix
    return model


def pictures(channels, generator, count=3):
    """Images with a mean and contrast of its own in every patch and channel, as a model gets them."""
    base = torch.rand(count, channels, SIDE // PATCH, SIDE // PATCH, generator=generator)
    pixels = 0.6 * base.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
    return normalize(255 * (pixels + 0.4 * torch.rand(count, channels, SIDE, SIDE, generator=generator)))


def test_a_perfect_prediction_is_painted_exactly(generator):
    for channels in (1, 3):
        images = pictures(channels, generator)
        truth = denormalize(images)
        mask = random_mask(3, 16, 0.75, generator=generator)
        for norm_pix, name in ((True, "norm-pix oracle"), (False, "pixel")):
            model = perfect(channels, norm_pix)
            made = reconstruct(model, images, mask, norm_pix=norm_pix)[name]
            assert (unpatchify(made.pixels, PATCH, GRID) - truth).abs().max() < 1e-5, (channels, name)
            assert made.psnr.min() > 90, (channels, name)
            whole = rebuild_whole(model, images, norm_pix=norm_pix)
            assert (whole - truth).abs().max() < 1e-5, (channels, name)


def test_neighbours_of_equal_patches_know_the_truth(generator):
    for channels in (1, 3):
        tile = torch.rand(2, channels, PATCH, PATCH, generator=generator)
        images = normalize(255 * tile.repeat(1, 1, *GRID))
        mask = random_mask(2, 16, 0.75, generator=generator)
        target = patchify(images, PATCH)
        guessed, true = neighbour_statistics(target, mask.hidden, GRID), patch_statistics(target)
        for got, expected in zip(guessed, true):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        made = reconstruct(perfect(channels, True), images, mask, norm_pix=True)["norm-pix"]
        assert (unpatchify(made.pixels, PATCH, GRID) - denormalize(images)).abs().max() < 1e-5


def test_a_guess_from_neighbours_sees_no_hidden_patch(generator):
    images = pictures(3, generator)
    mask = random_mask(3, 16, 0.75, generator=generator)
    model = initialize(MAE(SMALL, (SIDE, SIDE), 3), generator).eval()
    before = reconstruct(model, images, mask, norm_pix=True)
    changed = torch.where(mask.hidden[:, :, None], patchify(images, PATCH).flip(-1) * 0.5, patchify(images, PATCH))
    after = reconstruct(model, unpatchify(changed, PATCH, GRID), mask, norm_pix=True)
    for name in ("mean colour", "neighbours", "norm-pix"):
        torch.testing.assert_close(after[name].pixels, before[name].pixels, msg=lambda m, n=name: f"{n}: {m}")
    assert not torch.allclose(after["norm-pix oracle"].pixels, before["norm-pix oracle"].pixels), "an oracle leaks"


def test_psnr_counts_hidden_patches_alone():
    truth = torch.full((1, 4, 12), 0.5)
    guess = truth + torch.tensor([0.1, 0.1, 0.4, 0.4])[None, :, None]
    hidden = torch.tensor([[True, True, False, False]])
    assert psnr(guess, truth, hidden).item() == pytest.approx(20.0, abs=1e-4)  # -10 log10(0.1^2)
    half = torch.tensor([[False, True, True, False]])
    assert psnr(guess, truth, half).item() == pytest.approx(10.7058, abs=1e-3)  # -10 log10((0.01 + 0.16) / 2)


def test_blocks_of_several_patches_cannot_be_painted(generator):
    model = initialize(MAE(SMALL, (SIDE, SIDE), 3, block=3), generator).eval()
    with pytest.raises(LcmaeError, match="block: got 3 patches a token, expected 1"):
        reconstruct(model, pictures(3, generator), random_mask(3, 16, 0.75, generator=generator), norm_pix=True)
