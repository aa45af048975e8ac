"""Each table and figure of the paper as a named list of runs."""

from typing import Any, NamedTuple

from lcmae_core.config import Settings, replace


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

ABLATION: dict[str, dict[str, Any]] = {
    "smoke": {},
    "quick": {"steps": 80},
    "lab": {},
    "paper": {},
}
"""What the ablations of a profile change: at quick they are shorter than the main run, at the same rate."""


def controls(base: Settings, profile: str) -> dict[str, Settings]:
    """Controls for Table 1 that v2 does not report: (b) with two views, and at `paper` (b) at the LC-MAE rows' rate."""
    plain = table1(base, profile)["b"]
    two_views = {"(b) MAE, two views": replace(plain, views=2)}
    return two_views | ({"(b) MAE, base_lr 6e-4": replace(plain, base_lr=6e-4)} if profile == "paper" else {})


def table1(base: Settings, profile: str) -> dict[str, Settings]:
    """The seven pre-training runs of Table 1. All rows of a table share one rate, except at `paper`, which follows v2:
    base_lr 1.5e-4 for (b) and 6e-4 for every LC-MAE row, a confound that v2 leaves inside the table."""
    base = replace(base, ABLATION[profile])
    rows = {name: replace(base, row.weights) for name, row in TABLE1.items()}
    if profile == "paper":
        rows = {name: row if name == "b" else replace(row, base_lr=6e-4) for name, row in rows.items()}
    return rows


_REFERENCE: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {"DINO": {"local_crops": 2}},
    "quick": {
        "DINO": {
            "steps": 100,
            "base_lr": 3.2e-2,
            "clip_grad": 3.0,
            "local_crops": 4,
            "dino_dim": 256,
            "teacher_momentum": 0.9,
        },
        "supervised": {"steps": 80, "base_lr": 3.2e-2},
    },
    "lab": {"DINO": {"base_lr": 5e-4, "clip_grad": 3.0, "weight_decay": 0.1, "beta2": 0.999}, "supervised": {}},
    "paper": {
        "DINO": {"base_lr": 5e-4, "clip_grad": 3.0, "weight_decay": 0.1, "beta2": 0.999, "warmup": 0.1},
        "supervised": {"base_lr": 5e-4, "beta2": 0.999, "warmup": 0.05},
    },
}
"""What the references of a profile change. quick: CHANGELOG, "References at quick"; lab and paper: MAE's epochs, the
published DINO and DeiT rates, AdamW (0.9, 0.999); DINO's rising weight decay (0.04 to 0.4) is a constant 0.1 here."""


def references(base: Settings, profile: str) -> dict[str, Settings]:
    """DINO and a supervised ViT on the same data, with the encoder of `base`: what v2 compares MAE with (Fig. 3, 5)."""
    methods = {"DINO": "dino", "supervised": "supervised"}
    changes = _REFERENCE[profile]
    return {name: replace(base, changes.get(name, {}), method=method) for name, method in methods.items()}


RATIOS = (0.3, 0.45, 0.6, 0.75, 0.9)
"""v2 Fig. 6."""


def mask_ratios(base: Settings, profile: str) -> dict[float, Settings]:
    """The five runs of v2 Fig. 6, which differ in their mask ratio alone."""
    base = replace(base, ABLATION[profile])
    return {ratio: replace(base, mask_ratio=ratio) for ratio in RATIOS}


def deep_decoder(base: Settings, profile: str) -> Settings:
    """MAE with the 8-layer decoder that v2 Fig. 2-4 look into (at smoke 3 layers), trained as long as the main run."""
    return replace(base, decoder_depth=3 if profile == "smoke" else 8)
