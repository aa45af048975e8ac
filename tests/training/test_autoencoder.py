"""Every token's target is the block of the reflected image centred on its patch; the loss and its gradient are those of
the plain formula, made in bounded memory; block 1 is reconstruction of all patches; an autoencoder trains, resumes
bit-equal and is a run of its own; n training images repeat for as long an epoch, each time cut anew.
"""

import math
import os
import signal

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lcmae_core.config import LcmaeError, digest, replace
from lcmae_core.data import Loader, open_source
from lcmae_core.losses import reconstruction_loss
from lcmae_core.models.build import build_model
from lcmae_core.models.masking import no_mask
from lcmae_core.models.patches import centred_blocks, normalize_patches, patchify
from lcmae_core.studies import block_pixels, table3, table_a1
from lcmae_core.studies.published import TABLE3
from lcmae_core.training import autoencoder
from lcmae_core.training.autoencoder import block_loss
from lcmae_core.training.guards import Stopped
from lcmae_core.training.loop import pretrain
from tests.loops import over
from tests.training.helpers import weights

GRIDS = [(4, 4), (5, 7), (6, 4)]
BLOCKS = [1, 3, 5, 7]


def case(generator, grid=(3, 4), patch=2, block=3, batch=3, channels=2, dtype=torch.float64):
    """Images, predictions."""
    rows, cols = grid
    images = torch.randn(batch, channels, rows * patch, cols * patch, generator=generator, dtype=dtype)
    values = channels * (block * patch) ** 2
    return images, torch.randn(batch, rows * cols, values, generator=generator, dtype=dtype)


def slow_block(image, patch, block, row, col):
    """Row, column, channel of the pixels around patch (row, col) of one image (C, H, W), one pixel at a time."""
    _, height, width = image.shape

    def inside(place, side):
        place = abs(place)
        return place if place < side else 2 * (side - 1) - place

    reach = block // 2 * patch
    found = [
        image[:, inside(y, height), inside(x, width)]
        for y in range(row * patch - reach, (row + 1) * patch + reach)
        for x in range(col * patch - reach, (col + 1) * patch + reach)
    ]
    return torch.cat(found)


def slow_loss(pred, images, patch, block, norm_pix, reduction):
    """The plain formula, with numbers of Python."""
    cols = images.shape[3] // patch
    total = 0.0
    for image, predicted in zip(images, pred):
        for i, values in enumerate(predicted):
            target = slow_block(image, patch, block, i // cols, i % cols).tolist()
            if norm_pix:
                mean = sum(target) / len(target)
                var = sum((t - mean) ** 2 for t in target) / (len(target) - 1)
                target = [(t - mean) / math.sqrt(var + 1e-6) for t in target]
            total += sum((p - t) ** 2 for p, t in zip(values.tolist(), target))
    return total / (pred.numel() if reduction == "mean" else len(pred))


def plain(pred, images, patch, block, norm_pix, reduction):
    """The same with autograd: all targets at once."""
    target = centred_blocks(images, patch, block)
    square = (pred - (normalize_patches(target) if norm_pix else target)).square()
    return square.mean() if reduction == "mean" else square.sum(dim=(1, 2)).mean()


@over("grid", GRIDS)
@over("block", BLOCKS)
def test_every_target_is_a_slow_crop_of_the_reflected_image(grid, block, generator):
    images, _ = case(generator, grid, block=block)
    blocks = centred_blocks(images, 2, block)
    for image, found in zip(images, blocks):
        for i, target in enumerate(found):
            assert torch.equal(target, slow_block(image, 2, block, *divmod(i, grid[1]))), i


@over("block", BLOCKS)
def test_targets_are_crops_of_numpys_reflection(block, generator):
    images, _ = case(generator, (5, 4), patch=3, block=block, channels=3)
    border, side = block // 2 * 3, block * 3
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (border, border), (border, border)), mode="reflect")
    for i, target in enumerate(centred_blocks(images, 3, block)[1]):
        y, x = (3 * place for place in divmod(i, 4))
        assert np.array_equal(target.numpy(), padded[1, :, y : y + side, x : x + side].transpose(1, 2, 0).ravel())


def test_a_target_by_hand():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)  # patches of one pixel
    blocks = centred_blocks(image, 1, 3)
    assert blocks[0, 4].tolist() == list(range(9))
    assert blocks[0, 0].tolist() == [4, 3, 4, 1, 0, 1, 4, 3, 4]  # pixels beyond the corner: the edge is not repeated
    assert torch.equal(centred_blocks(image, 1, 1), patchify(image, 1))


@over("reduction", ["mean", "sum"])
@over("norm_pix", [True, False])
@over(("grid", "block"), [((3, 4), 3), ((4, 3), 5), ((2, 2), 1)])
def test_the_loss_is_a_slow_loop(grid, block, norm_pix, reduction, generator):
    images, pred = case(generator, grid, block=block, batch=2)
    slow = slow_loss(pred, images, 2, block, norm_pix, reduction)
    ours = block_loss(pred, images, 2, block, norm_pix=norm_pix, reduction=reduction)
    assert ours.item() == pytest.approx(slow, rel=1e-12)


@over("reduction", ["mean", "sum"])
@over("norm_pix", [True, False])
@over("chunk", [1, 700, 2**20])
def test_the_gradient_is_that_of_the_plain_formula(chunk, norm_pix, reduction, generator, monkeypatch):
    monkeypatch.setattr(autoencoder, "CPU_CHUNK", chunk)
    images, pred = case(generator, batch=5)
    found = []
    for loss in (block_loss(pred.requires_grad_(), images, 2, 3, norm_pix=norm_pix, reduction=reduction),
                 plain(pred, images, 2, 3, norm_pix, reduction)):  # fmt: skip
        (grad,) = torch.autograd.grad(3 * loss, pred)  # 3: what comes from above counts
        found.append((loss.item(), grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-14)


def test_the_gradient_is_that_of_finite_differences(generator):
    images, pred = case(generator, grid=(2, 3), patch=1, batch=2, channels=1)
    assert torch.autograd.gradcheck(lambda p: block_loss(p, images, 1, 3, reduction="sum"), pred.requires_grad_())


def test_a_perfect_prediction_costs_nothing_and_brightness_does_not_count(generator):
    images, _ = case(generator)
    target = normalize_patches(centred_blocks(images, 2, 3))
    assert block_loss(target, images, 2, 3).item() < 1e-20
    assert block_loss(target, 3 * images + 5, 2, 3).item() < 1e-10
    assert block_loss(target + 1, images, 2, 3).item() == pytest.approx(1)
    assert block_loss(target, 3 * images + 5, 2, 3, norm_pix=False).item() > 1


@over("norm_pix", [True, False])
@over("reduction", ["mean", "sum"])
def test_block_1_is_reconstruction_of_all_patches(norm_pix, reduction, generator):
    images, pred = case(generator, block=1, dtype=torch.float32)
    everything = torch.ones(pred.shape[:2], dtype=torch.bool)
    target = patchify(images, 2)
    target = normalize_patches(target) if norm_pix else target
    theirs = reconstruction_loss(pred, target, everything, reduction=reduction)
    assert torch.allclose(block_loss(pred, images, 2, 1, norm_pix=norm_pix, reduction=reduction), theirs, rtol=1e-5)


def test_the_loss_is_float32_under_autocast(generator):
    images, pred = case(generator, dtype=torch.float32)
    low = pred.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = block_loss(low, images, 2, 3)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(block_loss(low.detach().float(), images, 2, 3).item(), rel=1e-6)
    assert low.grad.dtype == torch.bfloat16


class Peak(TorchDispatchMode):
    """Bytes alive at most of what operations make inside the block."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if torch.is_tensor(tensor)}
        self.alive = {key: (ref, size) for key, (ref, size) in self.alive.items() if not ref.expired()}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and tensor.untyped_storage()._cdata not in known:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return result


@pytest.mark.parametrize("chunk", [9_000, 36_000])
def test_memory_is_bounded_by_the_chunk_and_not_by_the_batch(chunk, generator, monkeypatch):
    monkeypatch.setattr(autoencoder, "CPU_CHUNK", chunk)
    images, pred = case(generator, grid=(6, 6), patch=2, block=5, batch=64, channels=1, dtype=torch.float32)
    pred.requires_grad_()  # 64 images of 36 blocks of 100 values, 3 600: 230 400 in all
    padded, statistics = 20 * 20, 3 * 36
    bound = 4 * (3 * chunk + chunk // 3_600 * (padded + statistics))
    with Peak() as made:
        loss = block_loss(pred, images, 2, 5)
    assert 4 * chunk < made.most <= bound
    with Peak() as made:
        (grad,) = torch.autograd.grad(loss, pred)
    assert grad.shape == pred.shape
    assert made.most <= bound + 4 * grad.numel()
    with Peak() as made:
        plain(pred, images, 2, 5, True, "mean")
    assert made.most > 2 * 4 * pred.numel(), "the measure sees what the plain formula holds"


@over(
    ("block", "patches", "line"),
    [
        (2, 12, "block: got 2, expected an odd number up to 5 patches"),
        (7, 12, "block: got 7, expected an odd number up to 5 patches"),
        (3, 11, "pred: got shape (3, 11, 72), expected (3, 12, 72) for blocks of 3 patches"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(block, patches, line, generator):
    images, pred = case(generator, block=block)
    with pytest.raises(LcmaeError) as error:
        block_loss(pred[:, :patches], images, 2, block)
    assert str(error.value) == line


def test_an_unknown_reduction_is_refused(generator):
    images, pred = case(generator)
    with pytest.raises(LcmaeError, match=r"^reduction: got 'maen', did you mean 'mean'\?$"):
        block_loss(pred, images, 2, 3, reduction="maen")


@pytest.fixture
def ae(tiny):
    return replace(tiny, method="ae", block=3)


def test_an_autoencoder_sees_every_patch_and_predicts_blocks(ae, generator):
    model, images = build_model(ae), torch.randn(2, 3, 32, 32, generator=generator)
    output = model(images, no_mask(2, 16))
    assert output.pred.shape == (2, 16, 24 * 24 * 3)
    assert output.projected is None
    moved = images.clone()
    moved[:, :, 10, 10] += 1  # one pixel of any patch reaches the prediction of every other
    assert (model(moved, no_mask(2, 16)).pred != output.pred).any(dim=-1).all()


@pytest.mark.parametrize("block", [1, 3])
def test_training_lowers_the_loss(ae, block):
    run = pretrain(replace(ae, block=block, steps=60, batch_size=16, log_every=10, base_lr=0.03))
    _, curve = run.curve("reconstruction")
    assert curve[-1] < 0.9 * curve[0]
    assert run.results["held_out"]["reconstruction"] < 0.9 * curve[0]


def test_a_stopped_run_resumes_bit_equal(ae, tmp_path):
    whole = pretrain(replace(ae, out=str(tmp_path / "whole")))

    def stop(moment):
        if moment.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match="stopped at step 4"):
        pretrain(ae, callbacks=[stop])
    assert weights(pretrain(ae)) == weights(whole)


def test_an_autoencoder_is_a_run_of_its_own(ae):
    runs = [replace(ae, method="mae"), *(replace(ae, block=block) for block in BLOCKS)]
    assert len({digest(run, "photos") for run in runs}) == 5
    assert digest(replace(ae, mask_ratio=0.5, views=2), "photos") == digest(ae, "photos")  # nothing is masked


def test_tables_3_and_a1_differ_in_one_thing(tiny):
    rows = table3(tiny, "quick")
    assert list(rows) == list(TABLE3) == ["MAE", "AE1", "AE3", "AE5", "AE7"]
    assert [block_pixels(row) for row in rows.values()] == [8, 8, 24, 40, 56]
    assert {replace(row, method="mae", block=1) for row in rows.values()} == {rows["MAE"]}
    one, full = table_a1(tiny, "quick").values()
    assert replace(one, train_images=None) == full
    assert table_a1(tiny, "lab")["one image"].optim.epochs == 5


def loader_of(settings, device_cache_gb):
    return Loader(
        open_source(settings.data).train,
        settings.data,
        seed=0,
        batch_size=16,
        device="cpu",
        device_cache_gb=device_cache_gb,
    )


@pytest.mark.parametrize("device_cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("count", [1, 3])
def test_n_images_repeat_for_as_long_an_epoch(tiny, count, device_cache_gb):
    all_of_them, some = loader_of(tiny, device_cache_gb), loader_of(replace(tiny, train_images=count), device_cache_gb)
    assert some.size == all_of_them.size
    assert some.held == all_of_them.held == (device_cache_gb > 0)
    batches = list(some.batches(0, some.size // 16))
    index = torch.cat([batch.index for batch in batches])
    assert len(set(index.tolist())) == len(index), "a repetition has a number of its own"
    images = torch.cat([batch.images for batch in batches])
    distinct = len({image.numpy().tobytes() for image in images})
    assert distinct > 0.98 * len(images), "crops differ, but for boxes of whole pixels that happen to be the same"
    labels = torch.cat([batch.labels for batch in batches])
    assert set(labels.tolist()) == set(all_of_them.split.labels[:count].tolist())
    again = loader_of(replace(tiny, train_images=count), device_cache_gb).batch(1)
    assert torch.equal(again.images, batches[1].images)


@pytest.mark.parametrize("device_cache_gb", [1.0, 0.0])
def test_only_the_first_n_are_read(tiny, device_cache_gb):
    """Central views repeat with the period n, and are those of the first n pictures."""
    all_of_them, some = loader_of(tiny, device_cache_gb), loader_of(replace(tiny, train_images=3), device_cache_gb)
    reference = next(all_of_them.evaluation(3)).images
    for step, batch in enumerate(some.evaluation(3, limit=9)):
        assert torch.equal(batch.images, reference), step
    read = set()
    for number in range(some.size):
        read.add(some.split.names(number))
    assert read == {all_of_them.split.names(number) for number in range(3)}


def test_held_and_streamed_repetitions_agree(tiny):
    held, streamed = (loader_of(replace(tiny, train_images=2), gb).batch(0) for gb in (1.0, 0.0))
    assert torch.equal(held.index, streamed.index)
    assert (held.images - streamed.images).abs().max() < 0.1  # the two resize to whole grey levels at different places


def test_more_images_than_there_are_is_refused_in_one_line(tiny):
    size = len(open_source(tiny.data).train)
    with pytest.raises(LcmaeError) as error:
        open_source(replace(tiny, train_images=size + 1).data)
    assert str(error.value) == f"train_images: got {size + 1}, expected at most the {size} of split 'train'"
