"""Settings are frozen and strict, leaves unique, errors name the nearest, the digest sees what affects results."""

from typing import get_args

import pytest
from pydantic import ValidationError

from lcmae_core.config import (
    GROUPS,
    LEAVES,
    PROFILES,
    UNUSED,
    Dino,
    LcmaeError,
    Method,
    Runtime,
    Settings,
    Siamese,
    Supervision,
    digest,
    parse,
    profile,
    replace,
    unused,
)
from lcmae_core.config.profiles import IN_NOTEBOOK, profile_of
from tests.loops import over

OTHER = {
    "seed": 1, "image_size": 128, "channels": 1, "crop_scale": (0.5, 1.0), "crop_ratio": (1.0, 1.0), "flip": False,
    "on_unreadable": "skip", "image_decoder": "exact", "max_megapixels": 9.0,
    "min_side": 16, "validation_fraction": 0.2, "train_images": 2, "patch_size": 4,
    "width": 64, "depth": 2, "heads": 2, "mlp_ratio": 2.0, "decoder": "average", "decoder_width": 64,
    "decoder_depth": 1, "decoder_heads": 2, "decoder_kernel": 3, "decoder_sigma": 2.0, "block": 3, "projector_dim": 64,
    "project_from": "tokens", "mask_ratio": 0.5, "mask_unit": 2, "erased": True,
    "reconstruction": 0.5, "cross_view": 1.0,
    "in_view": 1.0, "reduction": "sum", "norm_pix": False, "in_view_pixels": "raw", "views": 2, "batch_size": 32,
    "accum_steps": 2, "steps": 10, "warmup": 0.2, "base_lr": 1e-3, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1,
    "clip_grad": 1.0, "precision": "bf16", "method": "supervised", "global_scale": (0.8, 1.0), "local_crops": 3,
    "local_size": 16, "local_scale": (0.2, 0.3), "jitter": 0.0, "hue": 0.1,
    "jitter_prob": 0.5, "grey_prob": 0.5, "blur_probs": (1.0, 0.5, 0.2), "solarise_prob": 0.5,
    "dino_dim": 64, "dino_hidden": 32,
    "dino_bottleneck": 16, "student_temp": 0.2, "teacher_temp": 0.1, "teacher_temp_start": 0.02,
    "teacher_temp_warmup": 0.9, "teacher_momentum": 0.9, "center_momentum": 0.5, "prototypes_frozen": 0.9,
    "positives": "position", "positive_radius": 1.5, "token_average": False, "siamese_cross_view": 2.0,
    "siamese_in_view": 0.5, "drop_path": 0.5, "rand_augment": "rand-m5-n1", "erase": 1.0, "mixup": 0.8, "cutmix": 1.0,
    "smoothing": 0.1,
}  # fmt: skip
SPECIAL = {"source", "epochs"}  # source counts by content; epochs replaces steps


def method_of(leaf):
    """The method or the decoder under which a leaf has an effect, as changes."""
    if leaf in ("decoder_kernel", "decoder_sigma"):
        return {"decoder": "average"}
    if leaf == "block":
        return {"method": "ae"}
    if leaf in Siamese.model_fields:
        return {"method": "siamese"}
    if leaf in Supervision.model_fields:
        return {"method": "supervised"}
    return {"method": "dino"} if leaf in UNUSED["mae"] else {}


def test_every_leaf_name_is_unique():
    names = [leaf for cls in GROUPS.values() for leaf in cls.model_fields]
    assert len(names) == len(set(names))
    assert set(LEAVES) == {*names, "seed", "method"}


def test_every_setting_outside_runtime_changes_the_digest():
    assert set(OTHER) | SPECIAL == set(LEAVES) - set(Runtime.model_fields)
    base = digest(Settings(), "x")
    changed = {name: digest(replace(Settings(), method_of(name) | {name: value}), "x") for name, value in OTHER.items()}
    assert len({base, *changed.values()}) == len(OTHER) + 1
    assert digest(replace(Settings(), steps=None, epochs=3.0), "x") != base
    assert digest(Settings(), "y") != base


@over("method", UNUSED)
def test_what_a_method_does_not_read_does_not(method):
    base = replace(Settings(), method=method)
    changes = {leaf: OTHER[leaf] for leaf in UNUSED[method] & set(OTHER)}
    assert digest(replace(base, changes), "x") == digest(base, "x")
    read = {leaf: OTHER[leaf] for leaf in ("seed", "width", "base_lr", "flip", "image_size")}
    assert len({digest(replace(base, {leaf: value}), "x") for leaf, value in read.items()}) == len(read)


def test_a_method_says_what_it_does_not_read():
    assert set(UNUSED) == set(get_args(Method))
    assert all(leaves <= set(LEAVES) for leaves in UNUSED.values())
    assert UNUSED["mae"] == {*Dino.model_fields, *Siamese.model_fields, *Supervision.model_fields, "block"}
    assert all(set(Supervision.model_fields) <= UNUSED[method] for method in UNUSED if method != "supervised")
    assert not set(Supervision.model_fields) & UNUSED["supervised"]
    assert {"mask_ratio", "reconstruction", "decoder_depth", "block"} <= UNUSED["dino"] & UNUSED["supervised"]
    assert {"mask_ratio", "cross_view", "project_from"} <= UNUSED["ae"]
    assert not {"block", "decoder", "norm_pix", "reduction"} & UNUSED["ae"]
    assert {"mask_ratio", "cross_view", "in_view", "decoder", "decoder_width", "dino_dim"} <= UNUSED["siamese"]
    assert not {*Siamese.model_fields, "decoder_sigma", "projector_dim", "in_view_pixels"} & UNUSED["siamese"]


@over(
    ("decoder", "read", "unread"),
    [
        ("transformer", {"decoder_depth", "decoder_heads"}, {"decoder_kernel", "decoder_sigma"}),
        ("convolution", {"decoder_kernel"}, {"decoder_depth", "decoder_heads", "decoder_sigma"}),
        ("average", {"decoder_kernel", "decoder_sigma"}, {"decoder_depth", "decoder_heads"}),
    ],
)
def test_a_decoder_has_its_own_settings(decoder, read, unread):
    base = replace(Settings(), decoder=decoder)
    assert {digest(replace(base, {leaf: OTHER[leaf]}), "x") for leaf in unread} == {digest(base, "x")}
    changed = {digest(replace(base, {leaf: OTHER[leaf]}), "x") for leaf in read}
    assert len(changed | {digest(base, "x")}) == len(read) + 1
    assert unused(base) >= unread
    assert not unused(base) & read


@over(
    ("changes", "unread"),
    [
        ({}, {"decoder", "decoder_depth"}),
        ({"token_average": False}, {"decoder_kernel", "decoder_sigma"}),
        ({"positives": "position"}, {"positive_radius"}),
        ({"siamese_in_view": 0.0}, {"in_view_pixels"}),
        ({"siamese_cross_view": 0.0}, {"positives", "positive_radius"}),
    ],
)
def test_the_siamese_network_reads_what_it_needs(changes, unread):
    base = replace(Settings(), changes, method="siamese")
    assert {digest(replace(base, {leaf: OTHER[leaf]}), "x") for leaf in unread} == {digest(base, "x")}
    read = {*Siamese.model_fields, "decoder_kernel", "decoder_sigma", "in_view_pixels"} - unread - {*changes}
    found = {digest(replace(base, {leaf: OTHER[leaf]}), "x") for leaf in read}
    assert len(found | {digest(base, "x")}) == len(read) + 1


def test_runtime_does_not():
    changes = {"device": "cpu", "out": "elsewhere", "workers": 0, "device_cache_gb": 1.0, "cache_gb": 1.0, "fsdp": True,
               "compile": True,
               "log_every": 3, "train": False, "checkpoint_every": 7, "snapshots": 2, "tensorboard": False,
               "progress": False}  # fmt: skip
    assert set(changes) == set(Runtime.model_fields)
    assert digest(replace(Settings(), changes), "x") == digest(Settings(), "x")


def test_digests_of_the_profiles_are_pinned():
    """They name runs on people's disks: a change here orphans them, so a default that affects results never changes;
    smoke alone, of which no number means anything, has been made smaller once."""
    assert {name: digest(profile(name), "photos-v1") for name in PROFILES} == PINNED


PINNED = {
    "smoke": "1a669218a2",
    "quick": "68e956be49",
    "desk": "e671e8b2b7",
    "lab": "d5c654d21c",
    "paper": "c3632a5dfb",
}


def test_frozen_and_strict():
    with pytest.raises(ValidationError):
        Settings().seed = 3
    with pytest.raises(LcmaeError, match="seed: got 'x', expected"):
        replace(Settings(), seed="x")


@over(("changes", "line"), [
        ({"mask_ratoi": 0.5}, "unknown setting 'mask_ratoi' (= 0.5): did you mean 'mask_ratio'?"),
        ({"mask_ratio": 1.0}, "mask_ratio: got 1.0, expected less than 1"),
        ({"mask_ratio": 0}, "mask_ratio: got 0, expected greater than 0"),
        (
            {"mask_ratio": 0.999},
            "mask_ratio: got 0.999, expected a ratio that leaves a visible and a hidden one of 64 cells",
        ),
        ({"patch_size": 7}, "patch_size: got 7, expected a divisor of image_size (64, 64)"),
        ({"image_size": 4}, "image_size: got (4, 4), expected at least one patch of 8 px"),
        ({"mask_unit": 3}, "mask_unit: got 3, expected a divisor of the 8x8 grid"),
        ({"views": 1, "cross_view": 1.0}, "views: got 1, expected 2, because cross_view (Eq. 5) compares two views"),
        (
            {"reconstruction": 0.0},
            "reconstruction, cross_view, in_view: got 0, 0, 0, expected at least one weight above 0",
        ),
        ({"steps": None}, "steps, epochs: got None, None, expected exactly one of them"),
        ({"accum_steps": 3}, "accum_steps: got 3, expected a divisor of batch_size 64"),
        ({"heads": 3}, "heads: encoder width 128 does not divide by 3 heads, expected a divisor"),
        ({"width": 126, "heads": 2}, "encoder width: got 126, expected a multiple of 4 (2-D sin-cos positions)"),
        ({"method": "dinno"}, "method: got 'dinno', expected 'mae', 'ae', 'dino', 'supervised' or 'siamese'"),
        ({"method": "dino", "local_size": 20}, "local_size: got (20, 20), expected multiples of the patch of 8 px"),
        ({"method": "dino", "local_size": 72}, "local_size: got (72, 72), expected at most image_size (64, 64)"),
        ({"local_scale": (0.5, 0.2)}, "local_scale: got (0.5, 0.2), expected 0 < low <= high <= 1"),
        ({"student_temp": 0}, "student_temp: got 0, expected greater than 0"),
        ({"decoder": "conv9"}, "decoder: got 'conv9', expected 'transformer', 'convolution' or 'average'"),
        ({"decoder_kernel": 4}, "decoder_kernel: got 4, expected an odd number of patches, from 1"),
        ({"decoder_sigma": 0}, "decoder_sigma: got 0, expected greater than 0"),
        ({"block": -1}, "block: got -1, expected an odd number of patches, from 1"),
        (
            {"method": "ae", "block": 17},
            "block: got 17, expected at most 15: the 8x8 grid has nothing to reflect beyond that",
        ),
        ({"positives": "near"}, "positives: got 'near', expected 'geometry' or 'position'"),
        ({"positive_radius": 0}, "positive_radius: got 0, expected greater than 0"),
        (
            {"siamese_cross_view": 0.0, "siamese_in_view": 0.0},
            "siamese_cross_view, siamese_in_view: got 0, 0, expected at least one weight above 0",
        ),
        ({"train_images": 0}, "train_images: got 0, expected greater than 0"),
        ({"blur_probs": (1.0, 2.0, 0.0)}, "blur_probs: got 2.0, expected less than or equal to 1"),
        ({"rand_augment": "m9"}, "rand_augment: got 'm9', expected timm's form 'rand-m9-mstd0.5-inc1'"),
        (
            {"method": "supervised", "mixup": 0.8, "batch_size": 6, "accum_steps": 2},
            "batch_size: got micro-batches of 3, expected an even number (mixup pairs images)",
        ),
    ])  # fmt: skip
def test_errors_are_one_line(changes, line):
    with pytest.raises(LcmaeError) as error:
        replace(Settings(), changes)
    assert str(error.value) == line


def test_unknown_profile():
    with pytest.raises(LcmaeError, match="unknown profile 'quik': did you mean 'quick'"):
        profile("quik")


def test_plain_data_round_trip():
    for name in PROFILES:
        assert parse(profile(name).model_dump(mode="json")) == profile(name)


def test_profiles_follow_the_design():
    assert [profile(name).grid for name in PROFILES] == [(8, 8), (8, 8), (8, 8), (14, 14), (14, 14)]
    paper = profile("paper")
    assert paper.optim.lr == pytest.approx(6e-4)  # 1.5e-4 * 1024 / 256
    assert profile("quick").optim.lr == pytest.approx(2e-3)
    desk = profile("desk")
    assert (desk.optim.lr, desk.optim.epochs, desk.optim.batch_size) == (pytest.approx(1.5e-3), 30, 32)
    assert (paper.optim.warmup * paper.optim.epochs, paper.model.decoder_depth) == (20, 2)


@over("wrong", [{"steps": "150"}, {"steps": True}, {"base_lr": "1e-3"}, {"flip": "no"}, {"crop_scale": (0.9, 0.1)},
              {"crop_scale": (-1, 1)}, {"crop_scale": (0.2, 3)}, {"crop_ratio": (0, 1)}])  # fmt: skip
def test_nothing_is_coerced_or_out_of_range(wrong):
    with pytest.raises(LcmaeError, match=f"{next(iter(wrong))}: got "):
        replace(Settings(), wrong)


def test_a_profile_says_everything_about_itself():
    for name, one in PROFILES.items():
        assert profile_of(name) is one
        assert all((one.purpose, one.command, one.cost, one.expect)), name
        assert one.seeds
        replace(profile(name), {**one.ablation, **one.costly})  # every leaf is known
        for leaves in (one.short_horizon, one.one_image, one.local_contrastive, one.units, one.dino, one.supervised):
            replace(profile(name), leaves)
    assert IN_NOTEBOOK == ("smoke", "quick")
    with pytest.raises(LcmaeError, match="unknown profile 'desc': did you mean 'desk'"):
        profile_of("desc")
