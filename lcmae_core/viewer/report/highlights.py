"""The pictures that the report opens with, each with a sentence that is worked out from what was recorded."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CARD = Path(__file__).parents[2] / "models" / "demo" / "card.json"
Values = Mapping[str, Any]
"""Name -> value of what the notebook recorded."""


class Highlight(NamedTuple):
    """A figure by its notebook and cell, its heading, and the finding as a function of the notebook's numbers."""

    notebook: str
    cell: str
    title: str
    finding: Callable[[Values], str]


def _rebuilt(_: Values) -> str:
    """What the card of the model measured: it comes along and is the same at every profile."""
    psnr = next(v for k, v in json.loads(CARD.read_text())["measured"].items() if k.startswith("PSNR of hidden"))
    return (
        f"From a quarter of the patches the demonstration model rebuilds the hidden ones at {psnr['trained']:.1f} dB; "
        f"their mean colour gives {psnr['mean colour']:.1f} dB, interpolated neighbours "
        f"{psnr['interpolated neighbours']:.1f} dB (its card, 64 crops of other photographs)."
    )


def _near(values: Values) -> str:
    model = values["model"].partition(",")[0].replace("of demonstration", "of the demonstration")
    return (
        f"In layer 1 of the {model} a query attends {values['near_1_layer_1']:.1f} times as much to the patches beside "
        f"it as uniform attention would, over all layers {values['near_1_all_layers']:.1f} times."
    )


def _alike(values: Values) -> str:
    layers = {int(name.rpartition("_")[2]): v for name, v in values.items() if name.removeprefix("s_attn_").isdigit()}
    high, low = max(layers, key=layers.__getitem__), min(layers, key=layers.__getitem__)
    return (
        f"Attention maps of different images are most alike in decoder layer {high} (S_attn {layers[high]:.2f}) and "
        f"least in layer {low} ({layers[low]:.2f}); the paper finds layers 1 and 3."
    )


def _collapse(values: Values) -> str:
    alone, both = values["mean_cosine_c"], values["mean_cosine_g"]
    word = "they have collapsed" if alone > 0.99 else "they have not collapsed to one point"
    return (
        f"With the cross-view loss alone outputs have a mean cosine of {alone:.3f}: {word}; with the in-view loss "
        f"beside it {both:.2f} is left."
    )


def _distance(values: Values) -> str:
    kinds = {k.removeprefix("distance_"): v for k, v in values.items() if k.startswith("distance_")}
    kinds = {k: v for k, v in kinds.items() if not k.endswith("_renormalized") and not k.startswith("ratio_")}
    nearest = min(kinds, key=kinds.__getitem__)
    told = ", ".join(f"{kind} {value:.1f} px" for kind, value in kinds.items())
    return f"Attention of the encoders reaches, on average, {told}: {nearest} is nearest; the paper says MAE, clearly."


HIGHLIGHTS = (
    Highlight("00", "627c2cfe", "Seen, and made of it", _rebuilt),
    Highlight("05", "c14", "Where hidden patches look", _near),
    Highlight("04", "c12", "Do maps of different images look alike?", _alike),
    Highlight("03", "c11", "What keeps the contrastive losses from collapse", _collapse),
    Highlight("06", "c09", "How far encoders look", _distance),
)
