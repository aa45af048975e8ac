"""The claims, C1 to C15 and C20 to C26 (v2 and v1), C16 to C19 (arXiv 2306.04898, "HLV"), and the rules that judge.

The rules were fixed after a review of the first ones (`claims.superseded`, which stay as they were) and before any run
of `desk` that they judge; after that they do not change. Accuracies are in percent, distances in pixels, layers count
from 1 in the texts. "gain" is MAE less random initialisation, of the same measure; where it is not above 0, a test
about accuracies is open.
"""

from lcmae_core.studies.claims.forms import Claim, reads_labels
from lcmae_core.studies.claims.hlv import HLV
from lcmae_core.studies.claims.lcmae import LCMAE

__all__ = ["CLAIMS", "UNJUDGED", "Claim", "reads_labels"]

CLAIMS: tuple[Claim, ...] = tuple(sorted((*LCMAE, *HLV), key=lambda claim: int(claim.name[1:])))
"""C1 to C26."""

UNJUDGED = {
    "attention moves to adjacent foreground objects (section 4.1)": "needs masks of objects, which no source here has",
    "the in-view loss costs a tenth of a point (Table 1)": "below what any scale here can resolve",
    "a restricted receptive field causes the gain of fine-tuning (section 4.2)": "v2's own AE(16) is its most local "
    "and its worst model; the effective receptive field is shown beside it",
}
"""Statements of v2 that no rule judges, with the reason."""
