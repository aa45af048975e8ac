"""The words of a command line: names of studies, known before anything is loaded, and what other processes get."""

from collections.abc import Sequence

from lcmae_core.config import LcmaeError, nearest

STUDY_NAMES = (
    "section32", "random", "collapse", "fig6", "fig_a1", "erasing", "fig2", "fig5", "fig5_supervised", "fig3", "table3",
    "erasing_tuned", "table_a1", "anchor", "table1", "table2", "hlv_ratios", "hlv_units", "shape", "siamese", "beside",
    "depth", "controls", "latents",
)  # fmt: skip
"""As `studies.STUDIES`, in their order."""


def chosen_studies(names: Sequence[str]) -> list[str]:
    """Names of studies in their order; none or "all" means all.

    Raises:
        LcmaeError: there is no such study.
    """
    for name in names:
        if name not in STUDY_NAMES and name != "all":
            raise LcmaeError(f"unknown study {name!r}: {nearest(name, [*STUDY_NAMES, 'all', 'status'])}")
    return [name for name in STUDY_NAMES if not names or "all" in names or name in names]


def without(words: Sequence[str], *options: str) -> list[str]:
    """The words of a command without some options and their values: those of its helpers."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in options and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept
