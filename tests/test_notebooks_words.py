"""Claims: what notebooks 00 to 06 say is true of whatever they show. Under another seed, with other pictures and with a
checkpoint of random weights every sentence that was worked out agrees with its numbers, and these with what the
notebook records; prose that was written beforehand states no result, unless it says whose (the paper's, a question).
"""

import json
import math

import numpy as np
import pytest
from PIL import Image

from lcmae_core.execute.discover import cell_source
from lcmae_core.store.results import Notebook
from lcmae_core.viewer.findings import Caption
from tests.notebook_cells import executed, notebook
from tests.studies.checkpoint_files import dino_file, mae_file
from tests.words import contradictions, ownerless, plain_words

NUMBERS = ("00", "01", "02", "03", "04", "05", "06")
DEFINITIONS = (
    "Predicting each patch's mean colour then costs almost exactly 1",
    "a higher ratio hides a superset",
    "What the oracle has more is the leak",
    "With fewer visible patches there is less to go by;",
    "the picture shows where they start.",
    "*Each panel shows one loss for the settings that train it.",
    "The lowest possible value of Eq 5 is reached by a constant;",
    "A mean cosine below 1 says that $v$ differs between patches, not why.",
    "a $v$ that depends on its *position* alone scores nearly 0.",
    "whether the others are alive for a better reason than their position",
    "Where cosines of deep features are all near 1, two nearly constant matrices are alike:",
    "Their ratio is about 1 - (attention on CLS)",
    "Where the left panel falls and the right one rises, CLS takes attention",
    "the spread over heads is not an interval.",
    "the column shows that everything runs, and decides nothing",
    "Pairs cross where one of the crops is mirrored",
    "Last-layer attention on a whole held-out photograph",
    "below:",
    "The identifiable set is what was worked out above.",
    "At moderate ratios unit 1 splits nearly every large subtree",
    "*Above:",
    "with 4 instead of 3 it dropped more of level 2",
    "for rows that vary more than the others its intervals are too short.",
    "a model that looks at CLS most of the time is near in the first convention",
    "The PSNR of all images is in the table below;",
    "C20 has no verdict where an untrained encoder or the mean colour finds nearly all images",
)
"""Clauses with a word of comparison that hold of any run: what a measure is, what follows from a graph, where something
stands, or a trial that is named as such."""
AT_LEAST = {"00": 5, "01": 3, "02": 8, "03": 8, "04": 6, "05": 5, "06": 6}
"""Findings that each notebook works out."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty-eight made pictures of two classes, unlike photographs: stripes and blots of colour."""
    home, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("stripes", "blots"):
        for split, count in (("train", 16), ("val", 8)):
            place = home / split / name
            place.mkdir(parents=True)
            for index in range(count):
                small = rng.random((1 if name == "stripes" else 6, 7, 3))
                picture = Image.fromarray((255 * small).astype("uint8")).resize((96, 80), Image.Resampling.BICUBIC)
                picture.save(place / f"{name}_{index:02d}.png")
    return home


def shown_by(number, **parameters):
    """The cells of a notebook executed, and its captions."""
    cells = list(executed(number, parameters))
    return cells, [value for cell in cells for value in cell.values if isinstance(value, Caption)]


def test_what_was_seen_once_is_silent_elsewhere(tmp_path):
    def stored(**asked):
        return Notebook("09", "x", **{"profile": "quick", "out": str(tmp_path)} | asked).as_stored

    assert stored()
    assert stored(data="photos")
    for other in ({"seed": 1}, {"profile": "smoke"}, {"data": f"folder:{tmp_path}"}, {"profile": "desk", "seed": 0}):
        assert not stored(**other), other
    assert Notebook("00", "x", "quick", out=str(tmp_path)).trained
    assert not Notebook("00", "x", "quick", f"folder:{tmp_path}", out=str(tmp_path)).trained, "checks of its own data"


def test_prose_states_no_result_that_is_not_somebodys():
    unused = set(DEFINITIONS)
    for number in (*NUMBERS, "07", "08", "09", "10", "11"):
        for place, cell in enumerate(notebook(number)):
            source = cell_source(cell)
            words = source if cell["cell_type"] == "markdown" else plain_words(source)
            for clause in ownerless(words):
                known = [start for start in DEFINITIONS if clause.startswith(start)]
                assert known, f"notebook {number}, cell {place + 1}: {clause!r}: whose is it? Work it out in a caption"
                unused -= set(known)
    assert not unused, f"no longer said: {unused}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_said_is_true_of_what_is_shown(number, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LCMAE_HEADLESS", "1")
    monkeypatch.delenv("LCMAE_OUT", raising=False)
    where = {"profile": "smoke", "data": f"folder:{folder}", "out": str(tmp_path)}
    cells, captions = shown_by(number, seed=7, **where)
    findings = [finding.ledger for said in captions for finding in said.findings]
    assert [wrong for ledger in findings for wrong in contradictions(ledger)] == []
    assert len(findings) >= AT_LEAST[number]
    plain = [" ".join(part for part in said.parts if isinstance(part, str)) for said in captions]
    assert [c for words in plain for c in ownerless(words) if not c.startswith(DEFINITIONS)] == []
    assert not any(cell.values for cell in cells if cell.kind == "markdown")
    recorded = json.loads((tmp_path / "results" / f"{number}.json").read_text())["values"]
    for name, value in AGREE.get(number, {}).items():
        assert any(
            math.isclose(float(v), recorded[name]["value"], rel_tol=1e-5, abs_tol=1e-6)
            for v in _values(findings, value)
        ), name


AGREE = {
    "00": {"psnr_model": "the model", "held_out_loss": "after"},
    "02": {"eq2_residual": None, "cosine_same_patch": "same patch, other mask", "cross_view_trained": "step 4"},
    "03": {"mean_cosine_c": "(c)", "mean_cosine_e": "(e)"},
    "04": {"s_attn_1": "layer 1", "s_sim_3": "layer 3"},
    "05": {"near_1_layer_1": "layer 1"},
    "06": {"distance_MAE": "MAE", "distance_DINO": "DINO"},
}
"""Recorded number -> what it is called in a caption, which must have the same value (None: it is in none)."""


def _values(findings, name):
    """Every value that captions have under a name."""
    return [0.0] if name is None else [v for f in findings for key, v in f["values"].items() if key == name]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [True, False])
def test_what_is_said_of_a_checkpoint_of_random_weights(decoder, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LCMAE_HEADLESS", "1")
    file = (mae_file if decoder else dino_file)(tmp_path, "random.pth")
    where = {"profile": "smoke", "data": f"folder:{folder}", "out": str(tmp_path), "model": str(file)}
    _, captions = shown_by("05", seed=7, **where)
    ledgers = [finding.ledger for said in captions for finding in said.findings]
    assert [wrong for ledger in ledgers for wrong in contradictions(ledger)] == []
    assert len(ledgers) >= AT_LEAST["05"]
    assert not any("demonstration" in str(said) for said in captions)
