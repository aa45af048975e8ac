"""What the papers report, row by row: v2's tables, and HLV (arXiv 2306.04898). Ours stand beside it."""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of Table 1: its three weights, and what the paper reports after 100 epochs of fine-tuning on ImageNet."""

    reconstruction: float
    cross_view: float
    in_view: float
    published: str

    @property
    def weights(self) -> dict[str, float]:
        """Leaves of the settings."""
        return {name: getattr(self, name) for name in ("reconstruction", "cross_view", "in_view")}

    @property
    def terms(self) -> str:
        """Which losses are on, in words."""
        names = {"reconstruction": "MAE", "cross_view": "cross", "in_view": "in"}
        return " + ".join(short for name, short in names.items() if self.weights[name])


TABLE1 = {
    "a": Row(1, 1, 1, "83.0"),
    "b": Row(1, 0, 0, "82.9"),
    "c": Row(0, 1, 0, "Collapse"),
    "d": Row(0, 0, 1, "82.2"),
    "e": Row(1, 1, 0, "83.1"),
    "f": Row(1, 0, 1, "82.8"),
    "g": Row(0, 1, 1, "82.5"),
}
"""v2 Table 1."""


class Reported(NamedTuple):
    """What the paper reports for a row: top-1 accuracy in percent after fine-tuning, and of a linear probe if given."""

    finetuned: str
    probed: str | None = None


class Level(NamedTuple):
    """What HLV (arXiv 2306.04898) reports of a mask: top-1 of a linear probe in percent, shape bias if given."""

    probed: str
    shape_bias: str | None = None


RANDOM_INIT = Reported("78.6")
"""The baseline of v2 Tables 3 and A.1, which needs no pre-training."""
TABLE2 = {"transformer": Reported("82.9"), "average": Reported("82.5"), "convolution": Reported("82.9")}
"""v2 Table 2, by `decoder`."""
TABLE3 = {
    "MAE": Reported("82.9", "55.4"),
    "AE1": Reported("78.7", "5.7"),
    "AE3": Reported("81.2", "5.7"),
    "AE5": Reported("81.5", "5.6"),
    "AE7": Reported("81.8", "5.6"),
}
"""v2 Table 3; its AE(16), AE(48), AE(80) and AE(112) are blocks of 1, 3, 5 and 7 patches of 16 px."""
TABLE_A1 = {"one image": Reported("81.8"), "full": Reported("82.9")}
"""v2 Table A.1: one image for 5 epochs, against all of ImageNet for 100."""
HLV_RATIOS = {
    0.1: Level("47.45", "0.135"),
    0.25: Level("53.58", "0.255"),
    0.5: Level("60.07", "0.246"),
    0.75: Level("67.41", "0.256"),
    0.9: Level("62.97", "0.201"),
}
"""HLV, by mask ratio (ViT-B/16)."""
HLV_UNITS = {1: Level("62.57"), 2: Level("68.96"), 4: Level("73.31")}
"""HLV, by side of a mask cell in patches (8, 16, 32 px, the ViT's patches being 8 px). Its text says that the largest
hurts, its table shows it best."""
