"""SSIM, FSIM, PSNR and MSE are piq's, and SSIM is that of scikit-image and torchmetrics where the whole window lies in
the picture; PSNR and MSE by hand; equal pictures, flat ones too, are 1, 1, 80 dB and 0; structure falls under what
leaves the histogram alone; every image by itself, clipped, grey or colour; a picture smaller than the window."""

import math
from itertools import pairwise

import piq
import pytest
import torch
from skimage import data
from skimage.metrics import structural_similarity
from skimage.transform import resize
from torch.nn import functional as F

from lcmae_core.analysis.fidelity import WINDOW, fidelity
from lcmae_core.config import LcmaeError
from tests.loops import over

SIZE, EDGE = 96, WINDOW // 2


@pytest.fixture(scope="module")
def photos():
    """Three photographs, (3, 3, 96, 96) in [0, 1]."""
    small = [resize(load(), (SIZE, SIZE), anti_aliasing=True) for load in (data.astronaut, data.chelsea, data.coffee)]
    return torch.stack([torch.from_numpy(one).permute(2, 0, 1).float() for one in small])


@pytest.fixture(scope="module")
def damaged(photos):
    """The first with noise, the second shifted by two pixels, the third blurred."""
    noise = 0.1 * torch.randn(photos[0].shape, generator=torch.Generator().manual_seed(0))
    blurred = F.avg_pool2d(photos[2], 5, 1, 2, count_include_pad=False)
    return torch.stack([photos[0] + noise, photos[1].roll(2, -1), blurred]).clamp(0, 1)


def test_all_are_piqs(photos, damaged):
    found = fidelity(damaged, photos)
    for image in range(3):
        pair = damaged[image : image + 1], photos[image : image + 1]
        assert found.ssim[image] == pytest.approx(piq.ssim(*pair, data_range=1.0).item(), abs=1e-6)
        assert found.fsim[image] == pytest.approx(piq.fsim(*pair, data_range=1.0, chromatic=True).item(), abs=1e-6)
        assert found.psnr[image] == pytest.approx(piq.psnr(*pair, data_range=1.0).item(), abs=1e-5)
    assert found.fsim[1] != pytest.approx(piq.fsim(damaged[1:2], photos[1:2], chromatic=False).item(), abs=1e-4)
    assert {tuple(part.shape) for part in found} == {(3,)}


def test_ssim_is_that_of_scikit_image(photos, damaged):
    """Both average the map over the places whose window lies in the picture: no border to argue about."""
    for image, ours in enumerate(fidelity(damaged, photos).ssim):
        theirs = structural_similarity(
            damaged[image].numpy(), photos[image].numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1,
        )  # fmt: skip
        assert ours == pytest.approx(float(theirs), abs=1e-5)


def test_ssim_is_that_of_torchmetrics_within_the_border(photos, damaged):
    """torchmetrics reflects the picture at its border and averages that too; inside, the maps are the same."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds, which one worker needs

    given = {"sigma": 1.5, "kernel_size": WINDOW, "data_range": 1.0, "reduction": "none"}
    whole, maps = structural_similarity_index_measure(damaged, photos, return_full_image=True, **given)
    inside = maps[..., EDGE:-EDGE, EDGE:-EDGE].mean(dim=(1, 2, 3))
    ours = fidelity(damaged, photos).ssim
    assert torch.allclose(ours, inside, atol=1e-5)
    assert not torch.allclose(ours, whole, atol=1e-3), "only the border tells them apart"


def test_ssim_of_one_window_by_its_formula(generator):
    """At 11 x 11 px there is one window: means, variances and covariance under its Gaussian weights."""
    a, b = torch.rand(2, WINDOW, WINDOW, generator=generator).double()
    place = torch.arange(WINDOW) - EDGE
    weights = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * 1.5**2)).double()
    weights /= weights.sum()
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    both = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert fidelity(a[None, None], b[None, None]).ssim.item() == pytest.approx(
        expected.item(), abs=1e-7
    )  # piq's window is float32


def test_pixels_by_hand():
    black = torch.zeros(3, 1, 16, 16)
    found = black.clone()
    found[0] += 0.1  # 0.01, 20 dB
    found[1, 0, :8] += 0.2  # half of 0.04: 0.02
    found[2, 0, 0, 0] = 1  # 1 / 256
    expected = [0.01, 0.02, 1 / 256]
    said = fidelity(found, black)
    assert said.mse.tolist() == pytest.approx(expected, rel=1e-5)
    assert said.psnr.tolist() == pytest.approx([-10 * math.log10(mse) for mse in expected], abs=1e-3)


@over("channels", [1, 3])
def test_equal_pictures_are_perfect_even_flat_ones(channels, photos):
    flat = torch.tensor([0.0, 0.3, 1.0])[:, None, None, None].expand(3, channels, SIZE, SIZE)
    for same in (photos[:, :channels], flat):
        found = fidelity(same, same)
        assert found.ssim.tolist() == pytest.approx([1] * 3, abs=1e-6)
        assert found.fsim.tolist() == pytest.approx([1] * 3, abs=1e-6)
        assert found.psnr.tolist() == pytest.approx([80] * 3, abs=1e-3)  # piq adds 1e-8 to the error
        assert found.mse.tolist() == [0] * 3


def test_a_flat_picture_is_judged_by_its_brightness_alone(photos):
    """Without variance SSIM is (2 a b + C1) / (a^2 + b^2 + C1)."""
    a, b = torch.full((1, 1, 32, 32), 0.3), torch.full((1, 1, 32, 32), 0.5)
    found = fidelity(a, b)
    assert found.ssim.item() == pytest.approx((2 * 0.15 + 1e-4) / (0.09 + 0.25 + 1e-4), abs=1e-4)
    for pair in ((a, photos[:1, :1, :32, :32]), (photos[:1, :1, :32, :32], a)):
        assert all(part.isfinite().all() for part in fidelity(*pair))


def test_structure_falls_where_patches_are_shuffled(photos, generator):
    """The histogram stays; the more patches change places, the lower SSIM and FSIM are."""
    patches = F.unfold(photos, 16, stride=16)  # (3, C * 16 * 16, 36)
    said = []
    for moved in (0, 4, 36):
        order = torch.arange(36)
        order[:moved] = order[:moved].roll(1)
        shuffled = F.fold(patches[..., order], (SIZE, SIZE), 16, stride=16)
        assert torch.equal(shuffled.flatten(1).sort().values, photos.flatten(1).sort().values)
        said.append(fidelity(shuffled, photos))
    for some, more in pairwise(said):
        assert (more.ssim < some.ssim - 0.01).all()
        assert (more.fsim < some.fsim - 0.01).all()


def test_structure_and_pixels_disagree_where_they_should(photos):
    """Brighter by 0.1: PSNR is 20 dB, SSIM stays high. Noise of the same squared error: SSIM falls."""
    dim = 0.8 * photos
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(1)).sign() * 0.1
    lit, noisy = fidelity(dim + 0.1, dim + 0), fidelity(dim + noise, dim)
    assert lit.psnr.tolist() == pytest.approx([20] * 3, abs=1e-3)
    assert (lit.ssim > noisy.ssim + 0.2).all()


def test_every_image_is_judged_by_itself(photos, damaged):
    together = fidelity(damaged, photos)
    for image in range(3):
        alone = fidelity(damaged[image : image + 1], photos[image : image + 1])
        turned = fidelity(damaged.flip(0), photos.flip(0))
        for name in together._fields:
            expected = getattr(together, name)[image].item()
            assert getattr(alone, name).item() == pytest.approx(expected, rel=1e-5)
            assert getattr(turned, name)[2 - image].item() == pytest.approx(expected, rel=1e-5)


def test_values_beyond_the_range_are_clipped(photos, damaged):
    beyond = torch.where(photos > 0.8, photos + 5, photos)
    clipped = torch.where(photos > 0.8, 1.0, photos)
    for pair, expected in (((beyond, damaged), (clipped, damaged)), ((damaged, beyond), (damaged, clipped))):
        assert all(torch.equal(a, b) for a, b in zip(fidelity(*pair), fidelity(*expected)))
    below = fidelity(torch.full((1, 1, 16, 16), -3.0), torch.zeros(1, 1, 16, 16))
    assert (below.mse.item(), below.ssim.item()) == (0, pytest.approx(1))


def test_grey_pictures_have_no_colour_to_judge(photos, damaged):
    found = fidelity(damaged[:, :1], photos[:, :1])
    assert torch.allclose(found.fsim, piq.fsim(damaged[:, :1], photos[:, :1], reduction="none", chromatic=False))
    of_channels = [fidelity(damaged[:, [c]], photos[:, [c]]).ssim for c in range(3)]
    assert torch.allclose(fidelity(damaged, photos).ssim, torch.stack(of_channels).mean(0), atol=1e-6)


@over(("height", "width"), [(10, 32), (32, 10)])
def test_a_picture_smaller_than_the_window_is_one_line(height, width):
    small = torch.zeros(1, 3, height, width)
    with pytest.raises(LcmaeError, match=f"^image_size: got {height}x{width} px, expected at least 11 px a side"):
        fidelity(small, small)
