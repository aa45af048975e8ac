"""The first rules, C1 to C19, as they stood and as they read: superseded, nothing judges by them any more.

They were written before any number of `lab`; what notebooks 02 to 06 show at `quick` was known then. Those of C16 to
C18 were written before any number of theirs, C19's after trial runs at `quick`, on which its experiment was shaped. A
review found them able to pass or fail for a wrong reason:

- mean cosine of v below .95 cannot see a v that depends on its position alone, which scores .01;
- attention distance can grow without reach, by attention to sinks that every query shares;
- 2 points are more than every difference of Table 1, and two classifiers at chance pass as equal;
- "halfway from random init to MAE" passes where MAE is worse than random init, and a random encoder passes C10;
- a highest or lowest of several is no mean, and the percentile bootstrap over three seeds covers 75 to 82 % where seeds
  dominate;
- Eq. 5 of an untrained decoder is nearly 0 and can only rise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lcmae_core.analysis.cues import shape_bias
from lcmae_core.analysis.recovery import correlation_gain, gap, gap_gain, mean_of_chosen, rank_correlation
from lcmae_core.studies.claims.forms import Claim
from lcmae_core.studies.judge import MARGIN, Cell, Test
from lcmae_core.studies.latents import SETTINGS
from lcmae_core.studies.registry import RANDOM


def _points(a: np.ndarray, b: np.ndarray) -> float:
    """Difference of two shares of right answers, in points."""
    return 100 * float(a - b)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(a.mean() - b.mean())


def _tuned(study: str, row: str) -> Cell:
    return Cell(study, row, "finetune", "right")


def _equal(study: str, row: str, other: str) -> Test:
    text = f"{row} - {other}, fine-tuned: within {MARGIN:g} points"
    return Test(text, (_tuned(study, row), _tuned(study, other)), _points, -MARGIN, MARGIN)


def _layers(text: str, key: str, statistic: Callable[..., float], study: str = "fig2") -> Test:
    measure = "semantic" if study == "fig3" else "similarity"
    return Test(text, (Cell(study, "MAE", measure, key),), statistic, low=0.0)


def _slope(values: np.ndarray) -> float:
    """Change from the first to the last entry of a line fitted through all."""
    place = np.linspace(-0.5, 0.5, len(values))
    return float(place @ values / (place @ place))


def _far(row: str, study: str = "fig5") -> Cell:
    return Cell(study, row, "distance", "distance")


def _deep(*ratios: np.ndarray) -> float:
    """Growth of the deeper half's distance over the ratios."""
    return _slope(np.array([far[len(far) // 2 :].mean() for far in ratios]))


def _deep_over_shallow(*ratios: np.ndarray) -> float:
    return _deep(*ratios) - _slope(np.array([far[: len(far) // 2].mean() for far in ratios]))


def _early(far: np.ndarray) -> float:
    """Distance of the first two layers over that of all."""
    return float(far[:2].mean() / far.mean())


_RATIOS = tuple(_far(ratio, "fig6") for ratio in ("0.3", "0.45", "0.6", "0.75", "0.9"))
_AE = ("AE1", "AE3", "AE5", "AE7")
_V = {row: Cell("table1", row, "collapse", "mean_cosine") for row in "cdg"}


def _probed(row: str) -> Test:
    rows = (Cell("table3", row, "probe", "right"), Cell("table3", "MAE", "probe", "right"))
    text = f"{row}: what its linear probe has above chance is below a quarter of MAE's"
    return Test(text, (*rows, Cell("table3", "MAE", "probe", "classes")), _over_a_quarter, high=0.0)


def _over_a_quarter(ae: np.ndarray, mae: np.ndarray, classes: np.ndarray) -> float:
    """Points above chance, less a quarter of MAE's."""
    chance = 1 / classes
    return 100 * float(ae - chance - 0.25 * (mae - chance))


def _recovers(text: str, study: str, row: str, full: str) -> Test:
    cells = (_tuned(study, row), _tuned(study, RANDOM), _tuned(study, full))
    return Test(text, cells, lambda a, zero, one: 100 * float(a - (zero + one) / 2), low=0.0)


_LEVELS = ("0.1", "0.25", "0.5", "0.75", "0.9")


def _better_probe(study: str, row: str, other: str, more: str = "") -> Test:
    cells = tuple(Cell(study, name, "probe", "right") for name in (row, other))
    return Test(f"linear probe, {row} - {other}: above 0{more}", cells, _points, low=0.0)


def _fidelity(text: str, key: str, statistic: Callable[..., float], **bound: Any) -> Test:
    return Test(text, tuple(Cell("hlv_ratios", row, "fidelity", key) for row in _LEVELS), statistic, **bound)


def _moderate(*ratios: np.ndarray) -> float:
    """Mean of .5 and .75, less the higher of both extremes."""
    least, _, half, most, extreme = ratios
    return float((half + most) / 2 - max(least, extreme))


def _lowest(*ratios: np.ndarray) -> float:
    """Ratio .1, less the mean of .5 and .75."""
    return float(ratios[0] - (ratios[2] + ratios[3]) / 2)


def _inside(*cues: np.ndarray) -> float:
    """Highest shape bias of .25, .5, .75, less the higher of both extremes; cues: shape and texture by ratio."""
    bias = [shape_bias(float(shape), float(texture)) for shape, texture in zip(cues[:5], cues[5:])]
    return float(np.max(bias[1:4]) - np.max([bias[0], bias[4]]))


_GAP = ("kept", "dropped", "trained_kept", "trained_dropped")


def _latents(
    text: str, statistic: Callable[..., float], *keys: str, low: float = -np.inf, high: float = np.inf
) -> Test:
    """statistic(levels, (settings, latents) of each key). Masks stand in the place of images; each seed and setting has
    its own, so pairing them by number is arbitrary, and with few seeds the intervals are too narrow."""
    rows = [setting.title for setting in SETTINGS]
    cells = (Cell("latents", row, "recovery", key) for key in keys for row in rows)

    def of_cells(levels: np.ndarray, *means: np.ndarray) -> float:
        return statistic(levels, *np.split(np.stack(means), len(keys)))

    return Test(text, (Cell("latents", rows[0], "recovery", "levels"), *cells), of_cells, low, high)


SUPERSEDED: tuple[Claim, ...] = (
    Claim("C1", "S_attn is highest in decoder layer 1, lowest in 3; the first two are well above the rest", "Fig. 2",
          "layer 1 about 0.9", (
              _layers("layer 1 - highest of the others: above 0", "s_attn", lambda s: float(s[0] - s[1:].max())),
              _layers("lowest of the others - layer 3: above 0", "s_attn",
                      lambda s: float(np.delete(s, 2).min() - s[2]) if len(s) > 2 else -1.0),
              _layers("lower of layers 1, 2 - highest of the rest: above 0", "s_attn",
                      lambda s: float(s[:2].min() - s[2:].max())))),
    Claim("C2", "S_sim to DINO is low in shallow and high in deep decoder layers", "Fig. 3", "shape only", (
        _layers("slope of S_sim over depth: above 0", "s_sim", _slope, "fig3"),
        _layers("slope of what S_sim has above another image's DINO: above 0 (our control)", "gain", _slope, "fig3"))),
    Claim("C3", "the cross-view loss alone collapses to a constant", "Table 1 c", "collapse", (
        Test("mean cosine of v in (c): above 0.95", (_V["c"],), float, low=0.95),)),
    Claim("C4", "in-view alone, and cross + in without reconstruction, do not collapse and come near MAE",
          "Table 1 d, g", "82.2, 82.5 (MAE 82.9)", (
              Test("mean cosine of v in (d): below 0.95", (_V["d"],), float, high=0.95),
              Test("mean cosine of v in (g): below 0.95", (_V["g"],), float, high=0.95),
              _equal("table1", "d", "b"), _equal("table1", "g", "b"))),
    Claim("C5", "LC-MAE keeps MAE's accuracy: a and e slightly above b, f slightly below", "Table 1",
          "a 83.0, b 82.9, e 83.1, f 82.8", tuple(_equal("table1", row, "b") for row in "aef")),
    Claim("C6", "one 5x5 convolution decodes as well as the transformer; a fixed Gaussian average loses a little",
          "Table 2", "transformer 82.9, average 82.5, convolution 82.9", (
              _equal("table2", "convolution", "transformer"), _equal("table2", "average", "transformer"),
              Test("transformer - average, fine-tuned: above 0",
                   (_tuned("table2", "transformer"), _tuned("table2", "average")), _points, low=0.0))),
    Claim("C7", "MAE's attention distance is below DINO's and supervised DeiT's", "Fig. 5", "shape only", tuple(
        Test(f"MAE - {other}, px: below 0", (_far("MAE"), _far(other)), _apart, high=0.0)
        for other in ("DINO", "supervised"))),
    Claim("C8", "attention distance grows with the mask ratio, most in deep layers", "Fig. 6", "shape only", (
        Test("growth from .3 to .9 in the deeper half, px: above 0", _RATIOS, _deep, low=0.0),
        Test("deeper half's growth - shallower half's, px: above 0", _RATIOS, _deep_over_shallow, low=0.0))),
    Claim("C9", "an autoencoder without masking fine-tunes like random init; larger blocks recover most of MAE",
          "Table 3", "random 78.6; AE 16/48/80/112: 78.7 81.2 81.5 81.8; MAE 82.9", (
              _equal("table3", "AE1", RANDOM),
              Test("AE7 - AE1, fine-tuned: above 0", (_tuned("table3", "AE7"), _tuned("table3", "AE1")), _points,
                   low=0.0),
              _recovers("AE7 above halfway from random init to MAE", "table3", "AE7", "MAE"))),
    Claim("C10", "the linear probe of every autoencoder is about a tenth of MAE's", "Table 3",
          "5.7 5.7 5.6 5.6 against 55.4", tuple(map(_probed, _AE))),
    Claim("C11", "attention distance of AE(16) is far smaller, grows with the block; AE widest in layers 1-2, MAE "
          "stable", "Fig. A.1", "shape only", (
              Test("AE1 / MAE: below 0.75", (_far("AE1", "fig_a1"), _far("MAE", "fig_a1")),
                   lambda ae, mae: float(ae.mean() / mae.mean()), high=0.75),
              Test("growth from AE1 to AE7, px: above 0", tuple(_far(row, "fig_a1") for row in _AE),
                   lambda *far: _slope(np.array([each.mean() for each in far])), low=0.0),
              Test("AE1, layers 1-2 / all layers: above 1", (_far("AE1", "fig_a1"),), _early, low=1.0),
              Test("MAE, layers 1-2 / all layers: within 0.15 of 1", (_far("MAE", "fig_a1"),), _early, 0.85, 1.15))),
    Claim("C12", "MAE on one image, 5 epochs, beats random init by far", "Table A.1", "81.8 against 78.6 (full 82.9)", (
        _recovers("one image above halfway from random init to the full set", "table_a1", "one image", "full"),)),
    Claim("C13", "hidden queries attend mostly to near tokens; first-layer maps look alike across images",
          "Fig. 4, B.1", "qualitative", (
              Test("attention within 2 patches, mean over layers: above 1.5 x uniform",
                   (Cell("fig2", "MAE", "similarity", "near"),), lambda near: float(near.mean()), low=1.5),
              _layers("S_attn of layer 1 - mean of the others: above 0", "s_attn",
                      lambda s: float(s[0] - s[1:].mean())))),
    Claim("C14", "Eq. 2 and Eq. 4 are identities; plain MAE lowers Eq. 5 and Eq. 6 without optimising them",
          "section 3.2", "identity", (
              *(Test(f"Eq. {n}, largest departure / largest loss: below 1e-12",
                     (Cell("section32", "MAE", "terms", f"eq{n}_residual"),), float, high=1e-12) for n in (2, 4)),
              *(Test(f"{eq}, trained - untrained: below 0",
                     (Cell("section32", "MAE", "terms", f"{key}_trained"),
                      Cell("section32", "MAE", "terms", f"{key}_untrained")), lambda a, b: float(a - b), high=0.0)
                for eq, key in (("Eq. 5", "cross_view"), ("Eq. 6", "in_view"))))),
    Claim("C15", "a Siamese network without masking and explicit decoder learns useful features (our reading: it does "
          "not collapse, and sees more like MAE than like DINO)", "v1, abstract; our reconstruction", "not available", (
              Test("mean cosine of v: below 0.95", (Cell("siamese", "Siamese", "collapse", "mean_cosine"),), float,
                   high=0.95),
              Test("CKA with MAE - CKA with DINO, mean over layers: above 0",
                   tuple(Cell("siamese", "Siamese", "cka", f"cka_{name}") for name in ("MAE", "DINO")), _apart,
                   low=0.0))),
    Claim("C16", "very small and very large mask ratios give low-level features", "HLV, mask ratio",
          "linear probe at .1 .25 .5 .75 .9: 47.45 53.58 60.07 67.41 62.97", (
              _better_probe("hlv_ratios", "0.75", "0.1"), _better_probe("hlv_ratios", "0.75", "0.9"))),
    Claim("C17", "the mask unit sets the level of the recovered features", "HLV, mask unit",
          "linear probe at 8, 16, 32 px: 62.57 68.96 73.31 (the text says that 32 hurts)", (
              _better_probe("hlv_units", "2x", "1x"),
              _better_probe("hlv_units", "4x", "2x", " (the paper's table; its text says below)"))),
    Claim("C18", "moderate ratios reconstruct structure better (SSIM, FSIM), low ones pixels (PSNR, MSE); shape bias "
          "peaks inside", "HLV, mask ratio", "shape bias .135 .255 .246 .256 .201", (
              *(_fidelity(f"{key.upper()}, mean of .5 and .75 - higher of .1 and .9: above 0", key, _moderate, low=0.0)
                for key in ("ssim", "fsim")),
              _fidelity("PSNR, .1 - mean of .5 and .75, dB: above 0", "psnr", _lowest, low=0.0),
              _fidelity("MSE, .1 - mean of .5 and .75: below 0", "mse", _lowest, high=0.0),
              Test("shape bias, highest of .25, .5, .75 - higher of .1 and .9: above 0",
                   tuple(Cell("hlv_ratios", row, "cues", cue) for cue in ("shape", "texture") for row in _LEVELS),
                   _inside, low=0.0))),
    Claim("C19", "in a hierarchical latent model MAE identifies exactly the latents shared by hidden and visible "
          "parts; ratio and unit choose which", "HLV, Theorems 1 and 2", "theorem", (
              _latents("rank correlation of measured with predicted recovery: above 0.5", rank_correlation,
                       "predicted", "trained", low=0.5),
              _latents("the same - that of shuffled latents: above 0.3", correlation_gain,
                       "predicted", "trained", "shuffled", low=0.3),
              _latents("R^2 of visible latents, identified - not identified: above 0", gap, *_GAP, low=0.0),
              _latents("the same - that of the untrained encoder: above 0", gap_gain, *_GAP, "untrained_kept",
                       "untrained_dropped", low=0.0),
              _latents("R^2 of visible latents that are not identified: below 0.1", mean_of_chosen, "dropped",
                       "trained_dropped", high=0.1))),
)  # fmt: skip
"""C1 to C19 as they were judged until version 0.2."""
