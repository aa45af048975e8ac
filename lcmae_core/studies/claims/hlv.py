"""The claims of HLV (arXiv 2306.04898): C16 to C19."""

from collections.abc import Callable

import numpy as np

from lcmae_core.analysis.recovery import correlation_gain, gap, gap_gain, mean_of_chosen, rank_correlation
from lcmae_core.studies.claims.forms import Claim, above, probed
from lcmae_core.studies.judge import Cell, Test, linear, shown, smooth
from lcmae_core.studies.latents import SETTINGS
from lcmae_core.studies.registry import RANDOM

_INSIDE, _EXTREME = ("0.25", "0.5", "0.75"), ("0.1", "0.9")
_MODERATE = ("0.5", "0.75")


def _better(study: str, row: str, other: str, more: str = "") -> Test:
    mae = probed("hlv_ratios", "0.75") if study == "hlv_ratios" else probed("hlv_units", "1x")
    return above(f"linear probe, {row} - {other}{more}", probed(study, row), probed(study, other), mae,
                 probed("random", RANDOM))  # fmt: skip


def _fidelity(row: str, key: str) -> Cell:
    return Cell("hlv_ratios", row, "fidelity", key)


def _structure(key: str) -> tuple[Test, ...]:
    """Moderate ratios above both extremes, pair by pair."""
    return tuple(
        linear(f"{key.upper()}, {row} - {other}: above 0", {_fidelity(row, key): 1, _fidelity(other, key): -1}, low=0)
        for row in _MODERATE for other in _EXTREME
    )  # fmt: skip


def _pixels(key: str, unit: str, better: int) -> tuple[Test, ...]:
    """The lowest ratio above each moderate one (better 1), or below it (better -1)."""
    low, high = (0.0, np.inf) if better > 0 else (-np.inf, 0.0)
    side = "above" if better > 0 else "below"
    return tuple(
        linear(f"{key.upper()}, 0.1 - {row}{unit}: {side} 0", {_fidelity("0.1", key): 1, _fidelity(row, key): -1},
               low=low, high=high) for row in _MODERATE
    )  # fmt: skip


def _answers(row: str, study: str = "hlv_ratios") -> tuple[Cell, Cell]:
    return Cell(study, row, "cues", "shape"), Cell(study, row, "cues", "texture")


def _bias(shape: np.ndarray, texture: np.ndarray) -> float:
    """Shape bias: answers by shape over answers by shape or texture; not defined where there are none."""
    answers = float(shape + texture)
    return float(shape) / answers if answers > 0 else float("nan")


_CONTROL = smooth(
    "supervised: answers by shape or texture - chance (2 / classes): above 0",
    (*_answers("supervised", "shape"), Cell("shape", "supervised", "probe", "classes")),
    lambda shape, texture, classes: float(shape + texture - 2 / classes), low=0,
)  # fmt: skip


def _peaks(row: str, other: str) -> Test:
    return smooth(
        f"shape bias, {row} - {other}: above 0", (*_answers(row), *_answers(other)),
        lambda shape, texture, other_shape, other_texture: _bias(shape, texture) - _bias(other_shape, other_texture),
        low=0, gates=(_CONTROL,),
    )  # fmt: skip


def _latents(
    text: str, statistic: Callable[..., float], *keys: str, low: float = -np.inf, high: float = np.inf
) -> Test:
    """statistic(levels, (settings, latents) of each key). Masks stand in the place of images and are drawn anew for
    each seed and setting, so seeds alone count."""
    rows = [setting.title for setting in SETTINGS]
    cells = (Cell("latents", row, "recovery", key) for key in keys for row in rows)

    def of_cells(levels: np.ndarray, *means: np.ndarray) -> float:
        return statistic(levels, *np.split(np.stack(means), len(keys)))

    every = (Cell("latents", rows[0], "recovery", "levels"), *cells)
    return smooth(text, every, of_cells, low=low, high=high, nested=True)


_GAP = ("kept", "dropped", "trained_kept", "trained_dropped")
HLV: tuple[Claim, ...] = (
    Claim("C16", "very small and very large mask ratios give low-level features", "HLV, mask ratio",
          "linear probe at .1 .25 .5 .75 .9: 47.45 53.58 60.07 67.41 62.97",
          (_better("hlv_ratios", "0.75", "0.1"), _better("hlv_ratios", "0.75", "0.9"))),
    Claim("C17", "the mask unit sets the level of the recovered features", "HLV, mask unit",
          "linear probe at 8, 16, 32 px: 62.57 68.96 73.31 (the text says that 32 hurts)", (
              _better("hlv_units", "2x", "1x"),
              _better("hlv_units", "4x", "2x", " (the paper's table; its text says below)"))),
    Claim("C18", "moderate ratios reconstruct structure better (SSIM, FSIM), low ones pixels (PSNR, MSE); shape bias "
          "peaks inside", "HLV, mask ratio", "shape bias .135 .255 .246 .256 .201", (
              *_structure("ssim"), *_structure("fsim"), *_pixels("psnr", ", dB", 1), *_pixels("mse", "", -1),
              *(_peaks(row, other) for row in _INSIDE for other in _EXTREME)), controls=(
              shown("supervised: answers by shape", Cell("shape", "supervised", "cues", "shape")),
              shown("supervised: answers by texture", Cell("shape", "supervised", "cues", "texture")),
              *(shown(f"{key.upper()} of each patch's mean colour", _fidelity("0.5", f"colour_{key}"))
                for key in ("ssim", "fsim", "psnr", "mse")))),
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
                       "trained_dropped", high=0.1)), controls=(
              _latents("rank correlation of the untrained encoder with the prediction", rank_correlation,
                       "predicted", "untrained"),
              _latents("rank correlation of visibility alone with the prediction", rank_correlation,
                       "predicted", "visible"))),
)  # fmt: skip
