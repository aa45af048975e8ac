"""Claims: boxes follow torchvision's RandomResizedCrop, resizing equals torchvision's and Pillow's antialiased bicubic,
normalisation inverts, and nothing here keeps a gradient or draws a number.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lcmae_core.data import augment as A
from lcmae_core.data import resample
from lcmae_core.data.resample import cut_one

SCALE, RATIO = (0.2, 1.0), (0.75, 4 / 3)


def draws(height, width, count=4000, scale=SCALE, ratio=RATIO):
    uniform = torch.rand(count, A.BOX_DRAWS, generator=torch.Generator().manual_seed(1))
    return A.draw_boxes(uniform, torch.full((count,), height), torch.full((count,), width), scale, ratio)


def slow_box(u, height, width, scale, ratio):
    """RandomResizedCrop.get_params with its random numbers handed in."""
    low, high = np.log(ratio[0]), np.log(ratio[1])
    for t in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u[t])
        aspect = np.exp(low + (high - low) * u[10 + t])
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return [int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < ratio[0]:
        h = round(w / ratio[0])
    elif width / height > ratio[1]:
        w = round(h * ratio[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 128), (300, 20), (1, 1), (3, 50)])
def test_boxes_equal_the_loop(height, width):
    uniform = torch.rand(300, A.BOX_DRAWS, generator=torch.Generator().manual_seed(2))
    got = A.draw_boxes(uniform, torch.full((300,), height), torch.full((300,), width), SCALE, RATIO)
    assert got.tolist() == [slow_box(u, height, width, SCALE, RATIO) for u in uniform.double().numpy()]


@pytest.mark.parametrize(("height", "width"), [(96, 96), (100, 160)])
def test_boxes_have_torchvisions_distribution(height, width):
    torch.manual_seed(3)
    rule, image = v2.RandomResizedCrop(64, SCALE, RATIO), torch.empty(3, height, width)
    drawn = [rule.make_params([image]) for _ in range(4000)]
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn]).double()
    ours = draws(height, width).double()
    for measure in (
        lambda b: b[:, 2] * b[:, 3] / (height * width),  # area
        lambda b: (b[:, 3] / b[:, 2]).log(),  # aspect
        lambda b: b[:, 0] / height,
        lambda b: b[:, 1] / width,
    ):
        a, b = measure(ours).sort().values, measure(theirs).sort().values
        assert abs(a.mean() - b.mean()) < 0.02
        grid = torch.linspace(-1, 1, 201).double()
        gap = (torch.searchsorted(a, grid) - torch.searchsorted(b, grid)).abs().max() / 4000
        assert gap < 0.044  # Kolmogorov-Smirnov: 0.044 is the 0.1 % level for 4000 against 4000


def test_boxes_lie_inside_and_reach_every_border():
    boxes = draws(40, 70, count=20_000)
    top, left, height, width = boxes.unbind(1)
    assert (boxes[:, 2:] >= 1).all()
    assert (boxes[:, :2] >= 0).all()
    assert (top + height).max() == 40
    assert (left + width).max() == 70
    assert top.min() == left.min() == 0


def test_full_scale_and_square_ratio_is_the_whole_square():
    assert draws(50, 50, 5, (1.0, 1.0), (1.0, 1.0)).tolist() == [[0, 0, 50, 50]] * 5


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        (96, 96, (64, 64), [0, 0, 96, 96]),
        (100, 60, (64, 64), [20, 0, 60, 60]),
        (60, 100, (32, 64), [5, 0, 50, 100]),
        (60, 100, (64, 32), [0, 35, 60, 30]),
        (1, 9, (8, 8), [0, 4, 1, 1]),
        (9, 1, (8, 64), [4, 0, 1, 1]),
    ],
)
def test_centre_boxes(height, width, size, box):
    assert A.centre_boxes(torch.tensor([height]), torch.tensor([width]), size).tolist() == [box]


def batch():
    """Natural-looking and worst-case pictures: smooth, noise, hard black-white edges."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, 80, 100), dtype=torch.uint8, generator=g)
    smooth = torch.nn.functional.interpolate(noise[:, :, :8, :10].float(), (80, 100), mode="bilinear").round().byte()
    edges = (torch.rand(2, 3, 80, 100, generator=g) > 0.5).byte() * 255
    return torch.cat([noise, smooth, edges])


CASES = [
    ([3, 5, 70, 90], (32, 32)),  # shrink, widened kernel
    ([10, 20, 30, 25], (64, 64)),  # enlarge
    ([0, 0, 80, 100], (24, 56)),
    ([40, 7, 40, 12], (20, 48)),  # shrink down, enlarge across
    ([79, 99, 1, 1], (8, 8)),  # one pixel
    ([8, 4, 64, 64], (64, 64)),  # copy
]


@pytest.mark.parametrize(("box", "size"), CASES)
def test_resize_equals_torchvision_and_pillow(box, size):
    images = batch()
    got = A.crop_resize(images, torch.tensor([box] * len(images)), size)
    bicubic = {"interpolation": v2.InterpolationMode.BICUBIC, "antialias": True}
    theirs = v2.functional.resized_crop(images, *box, list(size), **bicubic).float()
    top, left, h, w = box
    cuts = [Image.fromarray(i.permute(1, 2, 0).numpy()).crop((left, top, left + w, top + h)) for i in images]
    across = [c.resize((size[1], h), Image.Resampling.BICUBIC) for c in cuts]  # in one call Pillow may go down first
    pillow = np.stack([np.asarray(c.resize(size[::-1], Image.Resampling.BICUBIC)) for c in across])
    for other in (theirs, torch.from_numpy(pillow).permute(0, 3, 1, 2).float()):
        assert (got - other).abs().max() <= 1
        assert (got - other).abs().mean() < 0.02
    assert torch.equal(got, got.round())
    assert got.min() >= 0
    assert got.max() <= 255


@pytest.mark.parametrize(("box", "size"), CASES)
def test_resize_before_rounding_equals_torchvisions_floats(box, size):
    images = batch()
    got = A.resampled(images, torch.tensor([box] * len(images)), size, eight_bit=False)
    theirs = v2.functional.resized_crop(
        images.float(), *box, list(size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    assert (got - theirs).abs().max() < 0.02  # of 255, on noise of black and white: shares are multiples of 2^-15


def test_each_image_has_its_own_box_and_ignores_the_canvas_around_it(monkeypatch):
    images = batch()
    boxes = torch.tensor([[i, 2 * i, 20 + i, 30 + 3 * i] for i in range(6)])
    whole = A.crop_resize(images, boxes, (16, 16))
    for i, (top, left, h, w) in enumerate(boxes.tolist()):
        dirty = torch.full_like(images[i : i + 1], 200)
        dirty[..., top : top + h, left : left + w] = images[i : i + 1, :, top : top + h, left : left + w]
        assert torch.equal(A.crop_resize(dirty, boxes[i : i + 1], (16, 16))[0], whole[i])
    monkeypatch.setattr(A, "CHUNK", 1)  # one image at a time
    assert torch.equal(A.crop_resize(images, boxes, (16, 16)), whole)


def test_weights_by_hand():
    # Two pixels to one: centre 1, kernel twice as wide, so both get k(0.25) = 0.8671875 and half the sum.
    assert A.resize_weights(torch.tensor([0]), torch.tensor([2]), 3, 1)[0].tolist() == [[0.5, 0.5, 0.0]]
    # Two to four: output 1 lies at 0.75, taps at 0.5 and 1.5: k(0.25), k(0.75) = 0.8671875, 0.2265625, renormalised.
    row = A.resize_weights(torch.tensor([1]), torch.tensor([2]), 3, 4)[0, 1]
    exact = [0, 0.8671875 / 1.09375, 0.2265625 / 1.09375]
    assert row.tolist() == [round(share * 2**15) / 2**15 for share in exact]


def test_sums_are_exact_in_any_order_on_any_canvas(monkeypatch):
    # Black and white pixels and every kind of box: float64 sums, which are exact, find the same whole numbers.
    generator = torch.Generator().manual_seed(4)
    pixels = (torch.rand(64, 1, 300, 40, generator=generator) > 0.5).byte() * 255
    uniform = torch.rand(64, A.BOX_DRAWS, generator=generator)
    boxes = A.draw_boxes(uniform, torch.full((64,), 300), torch.full((64,), 40), (0.01, 1.0), (0.1, 10.0))
    across, down = (
        A.resize_weights(boxes[:, 1], boxes[:, 3], 40, 24),
        A.resize_weights(boxes[:, 0], boxes[:, 2], 300, 24),
    )
    assert (across.sum(dim=-1) == 1).all()
    assert (down * 2**15 == (down * 2**15).round()).all()
    rows = (pixels[:, 0].double() @ across.double().mT + 0.5).floor().clamp(0, 255)
    exact = (down.double() @ rows + 0.5).floor().clamp(0, 255)
    got = A.crop_resize(pixels, boxes, (24, 24))
    assert torch.equal(got[:, 0].double(), exact)
    pictures = [Image.fromarray(picture[0].numpy()) for picture in pixels]
    one_by_one = [cut_one(picture, box, (24, 24)) for picture, box in zip(pictures, boxes.tolist())]
    assert torch.equal(torch.stack(one_by_one).float(), got)
    monkeypatch.setattr(resample, "DENSE", 0)
    assert torch.equal(resample.cut_many(pixels, boxes, (24, 24)).float(), got)
    wide = torch.nn.functional.pad(pixels, (0, 500, 0, 77), value=99)
    assert torch.equal(A.crop_resize(wide, boxes, (24, 24)), got)
    backwards = A.crop_resize(pixels.flip(0), boxes.flip(0), (24, 24)).flip(0)
    assert torch.equal(backwards, got)


def test_autocast_does_not_touch_pixels():
    images, boxes = batch(), torch.tensor([[0, 0, 80, 100]] * 6)
    plain = A.crop_resize(images, boxes, (32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(A.crop_resize(images, boxes, (32, 32)), plain)


def test_flip_mirrors_only_the_marked():
    images = torch.arange(12.0).reshape(2, 1, 2, 3)
    got = A.flip(images, torch.tensor([False, True]))
    assert torch.equal(got[0], images[0])
    assert got[1, 0].tolist() == [[8, 7, 6], [11, 10, 9]]


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize_and_back(channels):
    images = torch.arange(channels * 4.0).reshape(1, channels, 2, 2) * 17
    normal = A.normalize(images)
    assert torch.allclose(A.denormalize(normal), images / 255, atol=1e-6)
    if channels == 3:
        assert normal[0, 1, 0, 0].item() == pytest.approx((4 * 17 / 255 - 0.456) / 0.224, rel=1e-5)
    else:
        assert normal[0, 0, 0, 0].item() == pytest.approx(-0.449 / 0.226, rel=1e-5)


def test_nothing_keeps_a_gradient():
    images, boxes = batch(), torch.tensor([[0, 0, 80, 100]] * 6)
    assert not A.normalize(A.crop_resize(images, boxes, (8, 8))).requires_grad
