"""Claims: crops are a pure function of (seed, epoch, index, crop number) and lie inside their picture; the first of
multi-crop draws from the stream that a single crop has always drawn from; held and streamed pictures give the same
crops; jitter follows its formula, keeps grey grey and [0, 255], and a strength of 0 changes nothing."""

import pytest
import torch
from made_pictures import picture
from PIL import Image

from lcmae_core.config import Data, Dino
from lcmae_core.data import Loader, denormalize
from lcmae_core.data.augment import BOX_DRAWS, draw_boxes, jitter
from lcmae_core.data.colour import Colours
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.loader import cut_resize, pixels_of, shrink
from lcmae_core.data.splits import Split
from lcmae_core.data.views import EVALUATION, Views, crop_pair, multi_crop

DATA, DINO = Data(image_size=(32, 24)), Dino(local_crops=3, local_size=16)
EPOCH, INDEX = torch.tensor([0, 0, 1, 5]), torch.tensor([0, 1, 1, 40])
HEIGHTS, WIDTHS = torch.tensor([60, 33, 33, 500]), torch.tensor([48, 90, 90, 100])


@pytest.fixture(scope="module")
def pictures():
    return [picture(i, *size) for i, size in enumerate([(60, 48), (40, 64), (33, 33), (200, 120), (64, 50)])]


def loader_of(pictures, dino=DINO, device_cache_gb=1.0, workers=0, data=DATA):
    split = Split("train", len(pictures), None, pictures.__getitem__, str)
    return Loader(
        split,
        data,
        seed=0,
        batch_size=4,
        device="cpu",
        device_cache_gb=device_cache_gb,
        workers=workers,
        crops=multi_crop(data, dino, 0),
    )


def test_two_global_crops_then_the_local_ones():
    views = multi_crop(DATA, DINO, 7)
    assert [view.size for view in views] == [(32, 24)] * 2 + [(16, 16)] * 3
    assert [view.scale for view in views] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 3
    assert [view.number for view in views] == list(range(5))
    assert {view.colours for view in views} == {Colours(jitter=0.4, blur_scale=24 / 224)}


def test_boxes_are_pure_and_inside_and_differ_between_crops():
    views = multi_crop(DATA, DINO, 0)
    boxes = [view.boxes(EPOCH, INDEX, HEIGHTS, WIDTHS) for view in views]
    for view, box in zip(views, boxes):
        assert torch.equal(box, view.boxes(EPOCH, INDEX, HEIGHTS, WIDTHS))
        alone = view.boxes(EPOCH[2:3], INDEX[2:3], HEIGHTS[2:3], WIDTHS[2:3])
        assert torch.equal(alone, box[2:3])
        top, left, height, width = box.unbind(1)
        assert (box[:, :2] >= 0).all()
        assert (box[:, 2:] > 0).all()
        assert (top + height <= HEIGHTS).all()
        assert (left + width <= WIDTHS).all()
        share = height * width / (HEIGHTS * WIDTHS)
        assert (share <= view.scale[1] * 1.1).all()
    assert len({tuple(box.flatten().tolist()) for box in boxes}) == len(boxes)
    other = views[0]._replace(seed=1)
    assert not torch.equal(other.boxes(EPOCH, INDEX, HEIGHTS, WIDTHS), boxes[0])


def test_crop_zero_draws_from_the_stream_of_a_single_crop():
    view = Views(3, (32, 24), (0.2, 1.0), (0.75, 4 / 3), True)
    uniform = counter_uniform(3, "crop", EPOCH, INDEX, BOX_DRAWS)
    expected = draw_boxes(uniform, HEIGHTS, WIDTHS, (0.2, 1.0), (0.75, 4 / 3))
    assert torch.equal(view.boxes(EPOCH, INDEX, HEIGHTS, WIDTHS), expected)
    assert torch.equal(view.flips(EPOCH, INDEX), counter_uniform(3, "flip", EPOCH, INDEX, 1)[:, 0] < 0.5)
    assert torch.equal(view._replace(number=2).shades(EPOCH, INDEX), counter_uniform(3, "jitter2", EPOCH, INDEX, 9))
    first = counter_uniform(3, "crop1", EPOCH, INDEX, BOX_DRAWS)
    expected = draw_boxes(first, HEIGHTS, WIDTHS, (0.2, 1.0), (0.75, 4 / 3))
    assert torch.equal(view._replace(number=1).boxes(EPOCH, INDEX, HEIGHTS, WIDTHS), expected)


def test_a_batch_carries_every_crop(pictures):
    batch = loader_of(pictures).batch(0)
    assert [tuple(crop.shape) for crop in batch.crops] == [(4, 3, 32, 24)] * 2 + [(4, 3, 16, 16)] * 3
    assert batch.images is batch.crops[0]
    halves = batch.chunks(2)
    for number, crop in enumerate(batch.crops):
        assert torch.equal(torch.cat([half.crops[number] for half in halves]), crop)
    assert not torch.equal(batch.crops[0], batch.crops[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_held_and_streamed_crops_agree_to_the_last_bit(pictures, workers):
    for dino in (DINO.model_copy(update={"jitter": 0.0}), DINO):
        held, streamed = loader_of(pictures, dino), loader_of(pictures, dino, device_cache_gb=0.0, workers=workers)
        assert held.held
        assert not streamed.held
        for a, b in [*zip(held.batches(0, 3), streamed.batches(0, 3)), *zip(held.evaluation(), streamed.evaluation())]:
            assert len(a.crops) == len(b.crops) == 5
            assert all(torch.equal(x, y) for x, y in zip(a.crops, b.crops))
            assert len(a.places) == 5
            assert all(torch.equal(x, y) for p, q in zip(a.places, b.places) for x, y in zip(p, q))


def test_places_are_the_boxes_and_flips_of_the_crops(pictures):
    """Cutting a picture anew at its place gives the crop."""
    data = Data(image_size=(32, 24))
    split = Split("train", len(pictures), None, pictures.__getitem__, str)
    views = crop_pair(data, 0)
    batch = Loader(split, data, seed=0, batch_size=5, device="cpu", crops=views).batch(0)
    flipped = torch.cat([place.mirrored for place in batch.places])
    assert flipped.any()
    assert not flipped.all()
    for crop, place in zip(batch.crops, batch.places):
        for i, number in enumerate(batch.index.tolist()):
            cut = cut_resize(shrink(pictures[number], (32, 24)), place.box[i].tolist(), (32, 24))
            pixels = pixels_of(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if place.mirrored[i] else cut)
            assert ((denormalize(crop[i : i + 1])[0] * 255) - pixels).abs().max() <= 2.01
    parts = batch.chunks(5)
    assert torch.equal(torch.cat([part.places[1].box for part in parts]), batch.places[1].box)
    assert Loader(split, data, seed=0, batch_size=5, device="cpu").batch(0).places == ()


def test_evaluation_has_the_central_view_and_fixed_crops(pictures):
    single = Loader(
        Split("train", len(pictures), None, pictures.__getitem__, str), DATA, seed=0, batch_size=4, device="cpu"
    )
    for many, one in zip(loader_of(pictures).evaluation(), single.evaluation(), strict=True):
        assert torch.equal(many.images, one.images)
        assert (many.epoch == EVALUATION).all()
        assert [crop.shape[-1] for crop in many.crops] == [24, 24, 16, 16, 16]  # the central view is none of them
        assert one.crops == ()
    again = next(iter(loader_of(pictures).evaluation()))
    assert all(torch.equal(x, y) for x, y in zip(again.crops, next(iter(loader_of(pictures).evaluation())).crops))


def test_jitter_by_hand():
    pixel = torch.tensor([[100.0, 50.0, 200.0], [0.0, 0.0, 0.0]]).T[None, :, :, None].expand(1, 3, 2, 1)
    uniform = torch.tensor([[0.75, 0.25, 1.0]])  # strength 0.4: factors 1.2, 0.8, and 1.2 for half of it
    x = 1.2 * pixel[0, :, :, 0]
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    x = 0.8 * x + 0.2 * grey.mean()
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    expected = (1.2 * x - 0.2 * grey).clamp(0, 255)
    assert torch.allclose(jitter(pixel, uniform, 0.4)[0, :, :, 0], expected, atol=1e-4)


def test_jitter_keeps_its_bounds(generator):
    images = torch.rand(6, 3, 8, 8, generator=generator) * 255
    uniform = torch.rand(6, 3, generator=generator)
    assert torch.allclose(jitter(images, uniform, 0.0), images, atol=1e-3)
    strong = jitter(images, uniform, 1.0)
    assert strong.min() >= 0
    assert strong.max() <= 255
    assert (strong - images).abs().max() > 20
    grey = images[:, :1].expand(-1, 3, -1, -1)
    assert torch.allclose(jitter(grey, uniform, 0.8), jitter(grey[:, :1], uniform, 0.8).expand_as(grey), atol=1e-3)
    assert torch.allclose(jitter(images[2:3], uniform[2:3], 0.7), jitter(images, uniform, 0.7)[2:3], atol=1e-4)
