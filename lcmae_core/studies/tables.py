"""The runs of each table and figure of the paper, by the names of their rows, at any profile."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from lcmae_core.config import PROFILES, LcmaeError, Settings, replace
from lcmae_core.config.profiles import profile_of
from lcmae_core.studies.published import HLV_RATIOS, HLV_UNITS, TABLE1, TABLE2

ABLATION = {name: one.ablation for name, one in PROFILES.items()}
"""What the ablations of a profile change: at quick they are shorter than the main run, at the same rate."""


def judged_seeds(profile: str) -> tuple[int, ...]:
    """The seeds on which the claims are judged at a profile."""
    return profile_of(profile).seeds


def short(base: Settings, profile: str) -> Settings:
    """The settings at the profile's shorter horizon; those of a profile with one horizon as they are. At desk collapse
    and attention distance are judged after 10 epochs, accuracies after the profile's own 30. Whatever is compared has
    the same horizon."""
    return replace(base, profile_of(profile).short_horizon)


def controls(base: Settings, profile: str) -> dict[str, Settings]:
    """Controls for Table 1 that v2 does not report: (b) with two views, and (b) at the LC-MAE rows' rate where they
    have one of their own. They decide no claim."""
    one, plain = profile_of(profile), table1(base, profile)["b"]
    if one.judged_rows:
        return {}
    cases = {"(b) MAE, two views": replace(plain, views=2)}
    if one.local_contrastive:
        faster = replace(plain, one.local_contrastive)
        rate = f"{faster.optim.base_lr:.0e}".replace("e-0", "e-")
        cases[f"(b) MAE, base_lr {rate}"] = faster
    return cases


def table1(base: Settings, profile: str) -> dict[str, Settings]:
    """The seven pre-training runs of Table 1. All rows of a table share one rate, except at `paper`, which follows v2:
    base_lr 1.5e-4 for (b) and 6e-4 for every LC-MAE row, a confound that v2 leaves inside the table."""
    base, ours = replace(base, ABLATION[profile]), profile_of(profile).local_contrastive
    rows = {name: replace(base, row.weights) for name, row in TABLE1.items()}
    return {name: row if name == "b" else replace(row, ours) for name, row in rows.items()}


def table2(base: Settings, profile: str) -> dict[str, Settings]:
    """The three decoders of v2 Table 2; all else is equal, and the transformer is Table 1's (b)."""
    base = replace(base, ABLATION[profile])
    return {kind: replace(base, decoder=kind) for kind in TABLE2}


def table3(base: Settings, profile: str) -> dict[str, Settings]:
    """MAE and the four autoencoders of v2 Table 3 and Fig. A.1, at MAE's rate and length, the shorter one where there
    are two. At quick all five are half as long as other ablations: a step of AE7 costs several of MAE's."""
    base = replace(short(base, profile), ABLATION[profile], **profile_of(profile).costly)
    blocks = {f"AE{block}": replace(base, method="ae", block=block) for block in (1, 3, 5, 7)}
    return {"MAE": base} | blocks


def block_pixels(settings: Settings) -> int:
    """Side in pixels of what a token predicts: v2 calls an autoencoder by it, AE(16)."""
    return settings.predicted_block * settings.model.patch_size


def table_a1(base: Settings, profile: str) -> dict[str, Settings]:
    """v2 Table A.1: MAE on one image for 5 epochs, each with as many crops as the full set has images [open], beside
    all images for the full length. At smoke and quick, where 5 epochs are no small part of the run, both are equally
    long, so that only the images differ."""
    base = replace(base, ABLATION[profile])
    return {"one image": replace(base, profile_of(profile).one_image, train_images=1), "full": base}


def references(base: Settings, profile: str) -> dict[str, Settings]:
    """DINO and a supervised ViT on the same data, with the encoder of `base`: what v2 compares MAE with (Fig. 3, 5)."""
    one = profile_of(profile)
    return {"DINO": replace(base, one.dino, method="dino"),
            "supervised": replace(base, one.supervised, method="supervised")}  # fmt: skip


RATIOS = (0.3, 0.45, 0.6, 0.75, 0.9)
"""v2 Fig. 6."""


def mask_ratios(base: Settings, profile: str, ratios: Iterable[float] = RATIOS) -> dict[float, Settings]:
    """Runs that differ in their mask ratio alone, by default those of v2 Fig. 6."""
    base = replace(base, ABLATION[profile])
    return {ratio: replace(base, mask_ratio=ratio) for ratio in ratios}


def deep_decoder(base: Settings, profile: str) -> Settings:
    """MAE with the 8-layer decoder that v2 Fig. 2-4 look into (at smoke 3 layers), trained as long as the main run."""
    return replace(base, decoder_depth=profile_of(profile).decoder)


def siamese(base: Settings, profile: str) -> dict[str, Settings]:
    """The Siamese network of v1 (our reconstruction) and each of its ingredients changed: positives by place in the
    grid instead of place in the photograph, no Gaussian average, no L_in. At quick all four are shorter than other
    ablations: a step encodes two whole crops, which costs several of MAE's. At desk the whole network alone, which
    C15 is about."""
    base = replace(short(base, profile), ABLATION[profile], **profile_of(profile).costly)
    base = replace(base, method="siamese")
    changed: dict[str, dict[str, Any]] = {
        "Siamese": {},
        "by position only": {"positives": "position"},
        "without the average": {"token_average": False},
        "without L_in": {"siamese_in_view": 0.0},
    }
    cases = {name: replace(base, changes) for name, changes in changed.items()}
    return {"Siamese": cases["Siamese"]} if profile_of(profile).judged_rows else cases


def beside(base: Settings, profile: str) -> dict[str, Settings]:
    """What the Siamese network is compared with: MAE and LC-MAE as in Table 1 (b, a), DINO and a supervised ViT, of the
    size, data and seed of `base`, at the shorter horizon. At quick their lengths are those of their own tables, 80 to
    100 steps. At desk MAE and DINO alone, which C15 needs."""
    base = short(replace(base, method="mae"), profile)
    rows = table1(base, profile)
    compared = {"MAE": rows["b"], "LC-MAE": rows["a"]} | references(base, profile)
    return {name: compared[name] for name in ("MAE", "DINO")} if profile_of(profile).judged_rows else compared


def mask_levels(base: Settings, profile: str) -> dict[float, Settings]:
    """MAE at the five mask ratios of HLV; .75 and .9 are runs of v2 Fig. 6. HLV does not say whether it normalised the
    pixels of a patch: as in the public MAE recipe, and as everywhere here, they are [open]."""
    return mask_ratios(base, profile, HLV_RATIOS)


def mask_units(base: Settings, profile: str) -> dict[str, Settings]:
    """MAE at ratio .75 with mask cells of 1, 2 and 4 patches a side, with a baseline of its own where the grid does
    not divide by 4: 16 x 16 patches at lab (128 px), 28 x 28 at paper (the patches of 8 px that HLV has). A unit that
    does not fit the grid of `base` is left out."""
    base, cases = replace(base, ABLATION[profile], **profile_of(profile).units), {}
    for unit in HLV_UNITS:
        with suppress(LcmaeError):
            cases[f"{unit}x"] = replace(base, mask_ratio=0.75, mask_unit=unit)
    return cases


def decoder_depths(base: Settings, profile: str) -> dict[str, Settings]:
    """MAE with decoders of 1, 2 and 8 blocks (C25); 2 and 8 are the runs of Table 1 (b) and of v2 Fig. 2."""
    base = replace(base, ABLATION[profile])
    return {str(depth): replace(base, decoder_depth=depth) for depth in (1, 2, 8)}


def erasing(base: Settings, profile: str) -> dict[str, Settings]:
    """MAE and its control for C26: the same share of patches erased (set to the mean colour) instead of left out, all
    tokens encoded, the loss on erased patches alone."""
    base = table3(base, profile)["MAE"]
    return {"MAE": base, "erased": replace(base, erased=True)}
