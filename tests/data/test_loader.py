"""Claims: a training batch is a pure function of (seed, step) wherever and however it is read; evaluation is fixed;
held and streamed pictures agree to the last bit; labels and indices stay with their pictures.
"""

import numpy as np
import pytest
import torch
from made_pictures import picture, write_folder
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import Loader, denormalize, loader, open_source
from lcmae_core.data.augment import normalize
from lcmae_core.data.splits import Split

SIZE = (32, 24)


def split_of(pictures, labels=True):
    return Split("train", len(pictures), np.arange(len(pictures)) if labels else None, pictures.__getitem__, str)


@pytest.fixture(scope="module")
def pictures():
    sizes = [(60, 48), (40, 64), (33, 33), (20, 12), (64, 50), (63, 47), (48, 48)]
    return [picture(i, *size) for i, size in enumerate(sizes)]


def loader_of(pictures, seed=0, batch_size=4, channels=3, labels=True, device_cache_gb=1.0, workers=0, **data):
    split = split_of([p.convert("L" if channels == 1 else "RGB") for p in pictures], labels)
    settings = Data(image_size=data.pop("image_size", SIZE), channels=channels, **data)
    return Loader(
        split,
        settings,
        seed=seed,
        batch_size=batch_size,
        device="cpu",
        device_cache_gb=device_cache_gb,
        workers=workers,
    )


def grey_levels(images):
    return denormalize(images) * 255


def same(a, b):
    crops = (getattr(batch, "crops", ()) for batch in (a, b))
    pairs = [*zip(a[:4], b[:4], strict=True), *zip(*crops, strict=True)]
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("device_cache_gb", [1.0, 0.0])
def test_batches_are_a_function_of_seed_and_step(pictures, device_cache_gb):
    first, again = (loader_of(pictures, device_cache_gb=device_cache_gb) for _ in range(2))
    assert first.held == (device_cache_gb > 0)
    sequence = list(first.batches(0, 6))  # 24 places of 7 images: epochs 0 to 3
    assert all(same(batch, again.batch(step)) for step, batch in enumerate(sequence))
    assert all(same(a, b) for a, b in zip(again.batches(3, 5), sequence[3:5], strict=True))
    assert not torch.equal(
        loader_of(pictures, seed=1, device_cache_gb=device_cache_gb).batch(0).images, sequence[0].images
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(pictures, workers):
    state = torch.random.get_rng_state()
    alone, helped = (loader_of(pictures, device_cache_gb=0.0, workers=w) for w in (0, workers))
    assert all(same(a, b) for a, b in zip(alone.batches(1, 4), helped.batches(1, 4), strict=True))
    assert all(same(a, b) for a, b in zip(alone.evaluation(), helped.evaluation(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_held_and_streamed_agree_to_the_last_bit(pictures):
    held, streamed = loader_of(pictures), loader_of(pictures, device_cache_gb=0.0)
    for step in range(4):
        a, b = held.batch(step), streamed.batch(step)
        assert same(a, b)
    assert all(same(a, b) for a, b in zip(held.evaluation(), streamed.evaluation(), strict=True))


def test_labels_and_indices_belong_to_their_pictures():
    flat = [Image.new("RGB", (40, 30 + i), (i * 20, 0, 255 - i * 20)) for i in range(10)]
    for device_cache_gb in (1.0, 0.0):
        source = loader_of(flat, device_cache_gb=device_cache_gb)
        for batch in [*source.batches(0, 5), *source.evaluation()]:
            red = grey_levels(batch.images)[:, 0, 5, 5].round().long()
            assert torch.equal(red, batch.index * 20)
            assert torch.equal(batch.labels, batch.index)


def test_an_epoch_visits_all_and_crops_differ_between_epochs(pictures):
    source = loader_of(pictures, batch_size=7)
    zero, one = source.batch(0), source.batch(1)
    assert zero.epoch.tolist() == [0] * 7
    assert one.epoch.tolist() == [1] * 7
    assert sorted(zero.index.tolist()) == sorted(one.index.tolist()) == list(range(7))
    for i in range(7):
        assert not torch.equal(zero.images[zero.index == i], one.images[one.index == i])


def test_crop_of_an_image_does_not_depend_on_its_batch(pictures):
    by_four, by_seven = loader_of(pictures, batch_size=4).batch(0), loader_of(pictures, batch_size=7).batch(0)
    assert torch.equal(by_four.images, by_seven.images[:4])


def test_half_is_mirrored_and_flip_off_mirrors_none():
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3)))
    for flip, low, high in ((True, 0.42, 0.58), (False, 0, 0)):
        source = loader_of([ramp], batch_size=400, flip=flip)
        images = source.batch(0).images
        share = (images[:, 0, 0, 0] > images[:, 0, 0, -1]).float().mean()
        assert low <= share <= high
        evaluated = next(loader_of([ramp] * 16, batch_size=16, flip=flip).evaluation()).images
        assert (evaluated[:, 0, 0, 0] < evaluated[:, 0, 0, -1]).all()


def test_crop_settings_have_an_effect(pictures):
    plain = loader_of(pictures).batch(0).images
    assert not torch.equal(plain, loader_of(pictures, crop_scale=(0.9, 1.0)).batch(0).images)
    assert not torch.equal(plain, loader_of(pictures, crop_ratio=(0.5, 2.0)).batch(0).images)


@pytest.mark.parametrize("device_cache_gb", [1.0, 0.0])
def test_evaluation_is_the_central_view_in_order(pictures, device_cache_gb):
    source = loader_of(pictures, device_cache_gb=device_cache_gb)
    batches = list(source.evaluation(batch_size=3))
    assert [len(b.index) for b in batches] == [3, 3, 1]
    assert torch.cat([b.index for b in batches]).tolist() == list(range(7))
    assert all((b.epoch == -1).all() for b in batches)
    # picture 6 is 48 x 48, the crop's aspect 32 : 24 leaves the central 36 columns
    expected = picture(6, 48, 48).crop((6, 0, 42, 48)).resize((24, 32), Image.Resampling.BICUBIC)
    expected = normalize(torch.from_numpy(np.array(expected)).permute(2, 0, 1).float())
    assert (grey_levels(batches[2].images[0]) - grey_levels(expected)).abs().max() <= 1.01
    assert sum(len(b.index) for b in source.evaluation(limit=5)) == 5


def test_grey_and_unlabelled(pictures):
    for device_cache_gb in (1.0, 0.0):
        batch = loader_of(pictures, channels=1, labels=False, device_cache_gb=device_cache_gb).batch(0)
        assert batch.images.shape == (4, 1, *SIZE)
        assert batch.labels is None


def test_large_pictures_are_shrunk_once_small_ones_never_grow(pictures):
    assert loader.shrink(picture(0, 400, 200), SIZE).size == (128, 64)
    assert loader.shrink(picture(0, 90, 1000), SIZE).size == (64, 711)
    assert loader.shrink(picture(0, 300, 64), SIZE).size == (300, 64)
    large = [picture(i, 300, 200) for i in range(3)]
    held, streamed = loader_of(large), loader_of(large, device_cache_gb=0.0)
    assert held._canvas.pixels.shape == (3, 3, 64, 96)
    assert same(held.batch(0), streamed.batch(0))


def test_a_picture_smaller_than_the_crop_is_enlarged():
    tiny = [Image.new("RGB", (1, 1), (10, 20, 30)), Image.new("RGB", (3, 1), (10, 20, 30))]
    for device_cache_gb in (1.0, 0.0):
        images = grey_levels(loader_of(tiny, device_cache_gb=device_cache_gb).batch(0).images)
        assert (images - torch.tensor([10.0, 20, 30])[:, None, None]).abs().max() < 0.01


def test_hold_gb_decides_where_pictures_lie(pictures):
    # a canvas of 7 x 3 x 64 x 64 bytes
    assert loader_of(pictures, device_cache_gb=7 * 3 * 64 * 64 / 1e9).held
    assert not loader_of(pictures, device_cache_gb=(7 * 3 * 64 * 64 - 1) / 1e9).held


def test_empty_split():
    empty = loader_of([])
    assert list(empty.evaluation()) == []
    with pytest.raises(LcmaeError, match="got 0 images"):
        empty.batch(0)


def test_files_from_disk_with_workers(tmp_path):
    write_folder(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(5)])
    split = open_source(Data(source=f"folder:{tmp_path}")).train
    pair = [
        Loader(split, Data(image_size=16), seed=0, batch_size=3, device="cpu", device_cache_gb=h, workers=2)
        for h in (1.0, 0.0)
    ]
    for a, b in zip(*(source.batches(0, 3) for source in pair), strict=True):
        assert same(a, b)


def test_imagenette_statistics(imagenette):
    split = open_source(Data(source=imagenette)).validation.subset(range(0, 3925, 16))
    source = Loader(split, Data(image_size=112), seed=0, batch_size=64, device="cpu")
    images = torch.cat([b.images for b in source.evaluation()])
    assert images.mean().abs() < 0.25  # ImageNet's photographs, normalised by ImageNet's statistics
    assert 0.8 < images.std() < 1.3
    assert source.batch(0).images.shape == (64, 3, 112, 112)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nothing_waits_and_pixels_are_the_cpus(pictures):
    split = split_of(pictures)
    on = [Loader(split, Data(image_size=SIZE), seed=0, batch_size=4, device=d, workers=0) for d in ("cpu", "cuda")]
    expected, _ = on[0].batch(3), on[1].batch(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = on[1].batch(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same(expected[1:4], [t.cpu() for t in got[1:4]])
    assert (grey_levels(expected.images) - grey_levels(got.images).cpu()).abs().max() <= 1.01
