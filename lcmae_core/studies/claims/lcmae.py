"""The claims of v2: C1 to C14 and C20 to C26; and of v1, as we reconstruct it: C15."""

from lcmae_core.analysis.reductions import (
    deeper,
    deeper_less_shallower,
    depth_slope,
    early_share,
    over_all,
    slope_weights,
    variation,
)
from lcmae_core.studies.claims.forms import (
    COLLAPSED,
    CONVENTIONS,
    Claim,
    above,
    attention_controls,
    between,
    collapse_controls,
    collapsing,
    distance_of,
    fine_tuned,
    first_less_others,
    growth,
    not_collapsed,
    probed,
    profile_above,
    shorter_distance,
    specific,
    specific_growth,
)
from lcmae_core.studies.judge import Cell, Test, combined, gain, linear, of_gain, share, shown, within_gain
from lcmae_core.studies.registry import RANDOM

DEPTH = 8
"""Layers of the decoder that v2 Fig. 2 to 4 look into."""
AES = ("AE1", "AE3", "AE5", "AE7")
UNTRAINED = fine_tuned("table3", RANDOM)
"""Random initialisation, fine-tuned by the recipe of all rows: one encoder for every table."""
TABLE1 = (fine_tuned("table1", "b"), UNTRAINED)
"""Both ends of the gain of Tables 1 and 2."""
TABLE3 = (fine_tuned("table3", "MAE"), UNTRAINED)
PROBE3 = (probed("fig_a1", "MAE"), probed("random", RANDOM))
"""Both ends of the gain of the probes of Table 3, at its horizon."""


def _s_attn(key: str = "s_attn") -> Cell:
    return Cell("fig2", "MAE", "similarity", key)


def _pairs() -> tuple[Test, ...]:
    """Layer 1 above every other, layer 3 below every other, both first ones above all from 3 on: pair by pair."""
    pairs = [(0, other) for other in range(1, DEPTH)]
    pairs += [(other, 2) for other in range(DEPTH) if other != 2]
    pairs += [(1, other) for other in range(2, DEPTH)]
    return tuple(
        linear(
            f"S_attn, layer {one + 1} - layer {other + 1}: above 0", {_s_attn(): 1}, low=0, reduce=between(one, other)
        )
        for one, other in dict.fromkeys(pairs)
    )


def _semantic(text: str, key: str) -> Test:
    return linear(text, {Cell("fig3", "MAE", "semantic", key): 1}, low=0, reduce=depth_slope)


def _keeps(row: str) -> Test:
    form = {fine_tuned("table1", row): 1, UNTRAINED: -1}
    return of_gain(f"({row}) - random - .6 gain, fine-tuned: above 0", form, *TABLE1, 0.6, above=True)


def _profiles(name: str, key: str) -> tuple[Test, ...]:
    """C11 in one convention."""
    mae, rows = distance_of("fig_a1", "MAE", key), {row: distance_of("fig_a1", row, key) for row in AES}
    shapes = {"layers 1-2 over all layers": early_share, "variation from layer to layer": variation}
    return (
        linear(f"AE1 - .75 MAE, px, {name}: below 0", {rows["AE1"]: 1, mae: -0.75}, high=0),
        linear(f"growth from AE1 to AE7, px, {name}: above 0", dict(zip(rows.values(), slope_weights(4))), low=0),
        *(profile_above(f"{row} - MAE, {what}, {name}: above 0", cell, mae, statistic)
          for what, statistic in shapes.items() for row, cell in rows.items()),
    )  # fmt: skip


def _term(key: str) -> Cell:
    return Cell("section32", "MAE", "terms", key)


def _terms() -> tuple[Test, Test]:
    """C14: each number after training less before."""
    own = {_term("in_view_own_trained"): 1, _term("in_view_own_untrained"): -1}
    relative = combined(
        {_term("cross_view_trained"): 1, _term("cross_view_other_trained"): -1},
        {_term("cross_view_untrained"): -1, _term("cross_view_other_untrained"): 1},
    )
    return (
        linear("Eq. 6 in the target's own space, trained - untrained: below 0", own, high=0),
        linear("Eq. 5 less Eq. 5 against another image, trained - untrained: below 0", relative, high=0),
    )


def _invariance(key: str) -> Cell:
    return Cell("section32", "MAE", "invariance", key)


def _finds(rival: str, key: str) -> Test:
    """C20, with no verdict where a control finds nearly all images by itself."""
    ceilings = tuple(
        share(f"found by {what}: below .9", _invariance(f"found_{what}"), high=0.9) for what in ("untrained", "colour")
    )
    cells = {_invariance("found"): 1, _invariance(key): -1}
    return linear(f"found - found by {rival}: above 0", cells, low=0, gates=ceilings)


def _cost(row: str, weight: float = 1) -> dict[Cell, float]:
    """What it costs to forbid a decoder's tokens to attend to one another."""
    of = {key: Cell("fig_a1", row, "reach", key) for key in ("loss_self", "loss_full")}
    return {of["loss_self"]: weight, of["loss_full"]: -weight}


def _table1_above(row: str, other: str) -> Test:
    return above(f"({row}) - ({other}), fine-tuned", fine_tuned("table1", row), fine_tuned("table1", other), *TABLE1)


LCMAE: tuple[Claim, ...] = (
    Claim("C1", "S_attn is highest in decoder layer 1, lowest in 3; the first two are well above the rest", "Fig. 2",
          "layer 1 about 0.9", _pairs(), controls=(
              shown("S_attn, mean over layers", _s_attn()),
              shown("untrained decoder: S_attn, mean over layers", _s_attn("untrained_s_attn")))),
    Claim("C2", "S_sim to DINO is low in shallow and high in deep decoder layers", "Fig. 3", "shape only", (
        _semantic("slope of S_sim over depth, to our DINO of the same data, size and seed: above 0", "s_sim"),
        _semantic("slope of what S_sim has above that DINO on the next image: above 0", "gain")), controls=(
        shown("the same slope with each image's mean feature taken away",
              Cell("fig3", "MAE", "semantic", "gain_centred"), reduce=depth_slope),)),
    Claim("C3", "the cross-view loss alone collapses to a constant", "Table 1 c", "collapse", (
        linear(f"mean cosine of v in (c): above {COLLAPSED}", {collapsing("c", "mean_cosine"): 1}, low=COLLAPSED),),
          controls=collapse_controls("c")),
    Claim("C4", "in-view alone, and cross + in without reconstruction, do not collapse and come near MAE",
          "Table 1 d, g", "82.2, 82.5 (MAE 82.9, random 78.6: .84 and .91 of the gain)",
          (*not_collapsed("d"), *not_collapsed("g"), _keeps("d"), _keeps("g")),
          controls=(*collapse_controls("d"), *collapse_controls("g"))),
    Claim("C5", "LC-MAE keeps MAE's accuracy: a and e slightly above b, f slightly below", "Table 1",
          "a 83.0, b 82.9, e 83.1, f 82.8 (.02 to .05 of the gain)", tuple(
              within_gain(f"({row}) - (b), fine-tuned: within .25 gain", fine_tuned("table1", row), *TABLE1[:1],
                          *TABLE1, 0.25) for row in "aef")),
    Claim("C6", "one 5x5 convolution decodes as well as the transformer; a fixed Gaussian average loses a little",
          "Table 2", "transformer 82.9, average 82.5, convolution 82.9", (
              within_gain("convolution - transformer, fine-tuned: within .25 gain", fine_tuned("table2", "convolution"),
                          fine_tuned("table2", "transformer"), fine_tuned("table2", "transformer"), UNTRAINED, 0.25),
              of_gain("transformer - average - .25 gain, fine-tuned: below 0",
                      {fine_tuned("table2", "transformer"): 1, fine_tuned("table2", "average"): -1},
                      fine_tuned("table2", "transformer"), UNTRAINED, 0.25),
              above("transformer - average, fine-tuned", fine_tuned("table2", "transformer"),
                    fine_tuned("table2", "average"), fine_tuned("table2", "transformer"), UNTRAINED))),
    Claim("C7", "MAE's attention distance is below DINO's and supervised DeiT's", "Fig. 5", "shape only",
          (*shorter_distance("fig5", "DINO"), *shorter_distance("fig5_supervised", "supervised")), controls=(
              *attention_controls("fig5", ("MAE", "DINO"), "nmi", "specific_mass"),
              *attention_controls("fig5_supervised", ("MAE", "supervised"), "nmi", "specific_mass"),
              *(specific(study, row) for study, row in (("fig5", "MAE"), ("fig5", "DINO"), ("fig5_supervised", "MAE"),
                                                        ("fig5_supervised", "supervised"))))),
    Claim("C8", "attention distance grows with the mask ratio, most in deep layers", "Fig. 6", "shape only", (
        *(growth(f"growth from .3 to .9, {where}, px, {name}: above 0", key, reduce)
          for name, key in CONVENTIONS.items()
          for where, reduce in (("deeper half", deeper), ("deeper half less shallower", deeper_less_shallower))),
        specific_growth("growth of the query-specific distance, deeper half, px: above 0", "distance", deeper),
        specific_growth("growth of the query-specific distance, deeper half less shallower, px: above 0", "distance",
                        deeper_less_shallower)),
          controls=attention_controls("fig6", ("0.3", "0.9"), "nmi", "entropy", "specific_mass", "masked_distance")),
    Claim("C9", "an autoencoder without masking fine-tunes like random init; larger blocks recover most of MAE",
          "Table 3", "random 78.6; AE 16/48/80/112: 78.7 81.2 81.5 81.8; MAE 82.9 (.02 .60 .67 .74 of the gain)", (
              of_gain("AE1 - random - .25 gain, fine-tuned: below 0", {fine_tuned("table3", "AE1"): 1, UNTRAINED: -1},
                      *TABLE3, 0.25),
              linear("growth from AE1 to AE7, fine-tuned: above 0",
                     dict(zip((fine_tuned("table3", row) for row in AES), slope_weights(4))), low=0, scale=100,
                     gates=(gain(*TABLE3),)),
              of_gain("AE7 - random - .5 gain, fine-tuned: above 0", {fine_tuned("table3", "AE7"): 1, UNTRAINED: -1},
                      *TABLE3, 0.5, above=True)), controls=(
              shown("random init by the recipe of all rows, %", UNTRAINED, scale=100),
              shown("random init by the recipe for training from scratch, %",
                    Cell("table3", RANDOM, "finetune_scratch", "right"), scale=100),)),
    Claim("C10", "the linear probe of every autoencoder is about a tenth of MAE's", "Table 3",
          "5.7 5.7 5.6 5.6 against 55.4", tuple(
              of_gain(f"{row} - random - .25 gain, linear probe: below 0",
                      {probed("fig_a1", row): 1, probed("random", RANDOM): -1}, *PROBE3, 0.25) for row in AES)),
    Claim("C11", "attention distance of AE(16) is far smaller, grows with the block; AE widest in layers 1-2, MAE "
          "stable", "Fig. A.1", "shape only",
          tuple(test for name, key in CONVENTIONS.items() for test in _profiles(name, key))),
    Claim("C12", "MAE on one image, 5 epochs, beats random init by far", "Table A.1",
          "81.8 against 78.6 (full 82.9: .74 of the gain)", (
              of_gain("one image - random - .5 gain, fine-tuned: above 0",
                      {fine_tuned("table_a1", "one image"): 1, UNTRAINED: -1}, fine_tuned("table_a1", "full"),
                      UNTRAINED, 0.5, above=True),)),
    Claim("C13", "hidden queries attend mostly to near tokens; first-layer maps look alike across images",
          "Fig. 4, B.1", "qualitative", (
              linear("attention within 2 patches, mean over layers: above 1.5 x uniform", {_s_attn("near"): 1},
                     low=1.5),
              linear("S_attn of layer 1 - mean of the others: above 0", {_s_attn(): 1}, low=0,
                     reduce=first_less_others)), controls=(
              shown("untrained decoder: attention within 2 patches, x uniform", _s_attn("untrained_near")),
              shown("untrained decoder: S_attn of layer 1 - mean of the others", _s_attn("untrained_s_attn"),
                    reduce=first_less_others))),
    Claim("C14", "Eq. 2 and Eq. 4 are identities; plain MAE lowers Eq. 5 and Eq. 6 without optimising them",
          "section 3.2", "identity", _terms(), controls=(
              *(shown(f"Eq. {n}, largest departure / largest loss", _term(f"eq{n}_residual")) for n in (2, 4)),
              *(shown(f"{eq} as it is, {when}", _term(f"{key}_{when}")) for eq, key in
                (("Eq. 5", "cross_view"), ("Eq. 6", "in_view")) for when in ("untrained", "trained")))),
    Claim("C15", "a Siamese network without masking and explicit decoder learns useful features (our reading: it does "
          "not collapse, sees more like MAE than like DINO, and is read better than before training)",
          "v1, abstract; our reconstruction", "not available", (
              *not_collapsed("Siamese", study="siamese", across="mirroring"),
              linear("CKA with MAE - CKA with DINO, mean over layers: above 0",
                     {Cell("siamese", "Siamese", "cka", "cka_MAE"): 1,
                      Cell("siamese", "Siamese", "cka", "cka_DINO"): -1}, low=0),
              above("Siamese - random init, linear probe", probed("siamese", "Siamese"), probed("random", RANDOM),
                    *PROBE3)), controls=(
              shown("CKA with its own untrained encoder", Cell("siamese", "Siamese", "cka", "cka_untrained")),
              *collapse_controls("Siamese", "siamese"))),
    Claim("C20", "MAE learns invariance to random masking: an image is found again under a mask with no patch in "
          "common", "conclusion", "no number",
          (_finds("the untrained encoder", "found_untrained"), _finds("mean colour", "found_colour")), controls=(
              shown("found, mean over layers", _invariance("layers_found")),
              shown("found by the untrained encoder, mean over layers", _invariance("layers_untrained")))),
    Claim("C21", "the reconstruction loss helps", "Table 1", "a 83.0 above g 82.5, f 82.8 above d 82.2",
          (_table1_above("a", "g"), _table1_above("f", "d"))),
    Claim("C22", "the cross-view loss helps", "Table 1", "g 82.5 above d 82.2, a 83.0 above f 82.8",
          (_table1_above("g", "d"), _table1_above("a", "f"))),
    Claim("C23", "reconstruction loss and cross-view loss together avoid collapse", "section 3.3 and Table 1 e",
          "no collapse (83.1)", (*not_collapsed("e"), *not_collapsed("e", "encoder")), controls=collapse_controls("e")),
    Claim("C24", "without masking a decoder needs only its own token; the mask ratio sets the decoder's reach",
          "section 4.2", "no number", (
              linear("cost of forbidding attention to other tokens, AE1 - a tenth of MAE's: below 0",
                     combined(_cost("AE1"), _cost("MAE", -0.1)), high=0),
              specific_growth("growth from .3 to .9 of the decoder's query-specific distance, px: above 0", "reach",
                              over_all)), controls=tuple(
              linear(f"{row}: cost of forbidding attention to other tokens", _cost(row)) for row in ("AE1", "MAE"))),
    Claim("C25", "a deep decoder helps linear probing", "section 4.1, after the MAE paper", "no number", tuple(
        above(f"linear probe, decoder depth {more} - {less}", probed("depth", more), probed("depth", less),
              probed("depth", "2"), probed("random", RANDOM)) for more, less in (("8", "2"), ("2", "1"))),
          controls=tuple(
              shown(f"fine-tuned, decoder depth {row}, %", fine_tuned("depth", row), scale=100)
              for row in ("1", "2", "8"))),
    Claim("C26", "masking is more than erasing", "section 4.2; our control", "no number", (
        above("MAE - erased patches, linear probe", probed("erasing", "MAE"), probed("erasing", "erased"),
              probed("erasing", "MAE"), probed("random", RANDOM)),
        above("MAE - erased patches, fine-tuned", fine_tuned("erasing_tuned", "MAE"),
              fine_tuned("erasing_tuned", "erased"), fine_tuned("erasing_tuned", "MAE"), UNTRAINED))),
)  # fmt: skip
