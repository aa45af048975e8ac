"""From a list of runs to a verdict.

`published` and `tables` say which runs a table or figure has, `registry` what is measured of each; `trials` trains and
measures (`specimen`, `measures*`) into records; `judge` and `claims` decide; `scoreboard` and `redraw` show.
"""

from lcmae_core.studies.registry import (
    ACCURACY,
    LEVEL,
    RANDOM,
    RATIOS,
    STUDIES,
    UNTRAINED_ONLY,
    Case,
    Study,
    beside,
    block_pixels,
    controls,
    decoder_depths,
    deep_decoder,
    erasing,
    leaves,
    mask_levels,
    mask_ratios,
    mask_units,
    references,
    siamese,
    table1,
    table2,
    table3,
    table_a1,
)

__all__ = [
    "ACCURACY", "LEVEL", "RANDOM", "RATIOS", "STUDIES", "UNTRAINED_ONLY", "Case", "Study", "beside", "block_pixels",
    "controls", "decoder_depths", "deep_decoder", "erasing", "leaves", "mask_levels", "mask_ratios", "mask_units",
    "references", "siamese", "table1", "table2", "table3", "table_a1",
]  # fmt: skip
