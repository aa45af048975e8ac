"""What the notebooks recorded, in words: every number beside the paper's, and the ten that matter."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple


def number_text(value: Any) -> str:
    """A number in at most four significant digits; whole numbers in full; text as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e6 else f"{value:.4g}"


def value_text(entry: Mapping[str, Any]) -> str:
    """value ± sd unit (n = ...)."""
    text = number_text(entry.get("value"))
    if entry.get("sd") is not None:
        text += f" ± {number_text(float(entry['sd']))}"
    if entry.get("unit"):
        text += f" {entry['unit']}"
    return text + (f" (n = {entry['n']})" if entry.get("n") is not None else "")


def facts_of(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Profile, device, commit ... of all results; several where they differ."""
    facts = []
    for name in ("profile", "data", "device", "seed", "commit", "date"):
        values = sorted({str(r[name]) for r in results if r.get(name) is not None})
        if name == "date" and len(values) > 1:
            values = [" to ".join(dict.fromkeys(value[:10] for value in (values[0], values[-1])))]
        facts.append((name, ", ".join(values)))
    packages = {f"{k} {v}" for r in results for k, v in r.get("versions", {}).items()}
    return [(name, text) for name, text in [*facts, ("versions", ", ".join(sorted(packages)))] if text]


def rows_of(results: Iterable[dict[str, Any]], failed: set[str]) -> Iterator[dict[str, str]]:
    """A line of the full table for every number; of failed notebooks they are from an earlier execution."""
    for result in results:
        stale = "from an earlier execution; the last one failed. " if str(result.get("notebook")) in failed else ""
        for index, (name, entry) in enumerate(result.get("values", {}).items()):
            yield {
                "notebook": str(result.get("notebook", "")),
                "first": "first" if index == 0 else "",
                "name": name.replace("_", " "),
                "value": value_text(entry),
                "kind": "" if isinstance(entry.get("value"), str) else "value",
                "paper": str(entry.get("paper") or ""),
                "note": stale + str(entry.get("note") or ""),
            }


class Number(NamedTuple):
    """A number that matters: who records it under which name, and what it is, in words."""

    notebook: str
    name: str
    words: str


CHOSEN = (
    Number("00", "held_out_loss", "error on hidden patches, Eq. 1 (1: every patch's mean)"),
    Number("00", "psnr_model", "hidden patches rebuilt by the run of this profile: PSNR"),
    Number("02", "eq2_residual", "Eq. 2 is an identity: largest departure (C14)"),
    Number("03", "mean_cosine_c", "cross-view loss alone: cosine; 1 is collapse (C3)"),
    Number("03", "mean_cosine_g", "cross-view and in-view loss: the same (C4)"),
    Number("04", "s_attn_1", "S_attn, decoder layer 1: maps of images alike (C1)"),
    Number("04", "s_sim_slope", "S_sim to DINO: correlation with the decoder's depth (C2)"),
    Number("05", "near_1_layer_1", "attention next to a hidden patch, decoder layer 1 (C13)"),
    Number("06", "trend_renormalized", "attention distance: correlation with the mask ratio (C8)"),
    Number("09", "rho_trained_encoder", "latents recovered as the graph predicts (C19)"),
)
"""What a reader should take home; tests/viewer/test_report.py asks the notebooks for each name."""


def chosen_rows(results: Iterable[Mapping[str, Any]], count: int = 10) -> list[tuple[str, str, str, str]]:
    """(notebook, words, value, the paper's) of the chosen numbers; filled up with the first of what else was recorded
    where notebooks outside the collection, or only some of it, were executed."""
    values = {str(r.get("notebook", "")): r.get("values", {}) for r in results}
    rows = [(c.notebook, c.words, values[c.notebook][c.name]) for c in CHOSEN if c.name in values.get(c.notebook, {})]
    told = {number for number, *_ in rows}
    others = [(n, name.replace("_", " "), e) for n, of in values.items() if n not in told for name, e in of.items()]
    if len(values) < 3:
        rows += others[: count - len(rows)]
    return [
        (n, words, value_text(entry), str(entry.get("paper") or ""))
        for n, words, entry in sorted(rows, key=lambda f: f[0])
    ]
