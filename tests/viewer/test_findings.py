"""Claims: the word of a finding is that of its numbers, with an interval where images can be compared and by the digits
shown where they cannot; a caption carries them along in the metadata of its output; a sentence that its numbers
contradict is seen by rules written a second time (`tests.words`)."""

import json

import nbformat
import numpy as np
import pytest
import torch

from lcmae_core.viewer.findings import (
    Finding,
    along,
    apart,
    caption,
    course,
    digits,
    meaning,
    order,
    paired_interval,
)
from lcmae_core.viewer.report.notebooks import section_of
from tests.execute.toys import FIGURE, code, make_notebook
from tests.words import clauses, contradictions, ownerless, plain_words

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(20, 5, 40)
BANDS = (0.5, "small"), (1.0, "middling"), (float("inf"), "large")

CASES = [
    (apart("PSNR", ("the model", IMAGES + 1), {"a fill": IMAGES}, "dB"), ["above"]),
    (apart("PSNR", ("it", IMAGES - RNG.random(40)), {"a fill": IMAGES, "another": IMAGES - 4}), ["below", "above"]),
    (apart("PSNR", ("the model", IMAGES + RNG.normal(0, 4, 40)), {"a fill": IMAGES}), ["not told apart from"]),
    (apart("x", ("one", 1.0), {"two": 2.0, "same": 1.0001, "less": -3}), ["below", "not told apart from", "above"]),
    (apart("x", ("one", IMAGES[:1]), {"two": IMAGES[:1] + 1}), ["below"]),
    (apart("x", ("one", IMAGES), {"a line": 1.0}), ["above"]),
    (order("S", {"layer 1": 0.4, "layer 2": 0.9, "layer 3": 0.1}), ["layer 2", "layer 3"]),
    (order("S", {"layer 1": 0.4}), ["everywhere"]),
    (order("S", {"a": 0.40001, "b": 0.40002}), ["everywhere"]),
    (order("S", {"a": -3, "b": -1}), ["b", "a"]),
    (course("Loss", ("before", 1.6), ("after", 0.5)), ["falls"]),
    (course("Loss", ("before", 0.0035), ("after", 0.0379)), ["rises"]),
    (course("Loss", ("before", 0.33401), ("after", 0.33402)), ["stays"]),
    (course("Loss", ("before", float("nan")), ("after", 0.3)), ["stays"]),
    (along("Distance", "the ratio", {"0.1": 1, "0.5": 2, "0.9": 3}, "px"), ["rises throughout"]),
    (along("Distance", "the ratio", {"0.1": 3, "0.5": 2, "0.9": 1}), ["falls throughout"]),
    (along("Distance", "the ratio", {"0.1": 3, "0.5": 1, "0.9": 2}), ["goes up and down"]),
    (along("Distance", "the ratio", {"0.1": 3, "0.5": 3.0001, "0.9": 3}), ["stays the same"]),
    (meaning("It", 0.2, *BANDS), ["small", "small", "middling", "large"]),
    (meaning("It", 0.7, *BANDS), ["middling", "small", "middling", "large"]),
    (meaning("It", 7, *BANDS), ["large", "small", "middling", "large"]),
]  # fmt: skip


@pytest.mark.parametrize(("finding", "says"), CASES)
def test_the_word_is_that_of_the_numbers(finding, says):
    assert list(finding.says) == says
    assert contradictions(finding.ledger) == []
    assert json.loads(json.dumps(finding.ledger)) == finding.ledger


SWAPPED = {"above": "below", "below": "above", "not told apart from": "above", "rises": "falls", "falls": "rises",
           "stays": "falls", "rises throughout": "falls throughout", "falls throughout": "goes up and down",
           "goes up and down": "rises throughout", "stays the same": "rises throughout"}  # fmt: skip


@pytest.mark.parametrize("finding", [f for f, said in CASES if said[0] in SWAPPED and "nan" not in f.text])
def test_a_sentence_that_its_numbers_contradict_is_seen(finding):
    wrong = SWAPPED[finding.says[0]]
    text = finding.text.replace(finding.says[0], wrong, 1)
    lie = Finding(text, finding.kind, [wrong, *finding.says[1:]], finding.values, finding.intervals)
    assert contradictions(lie.ledger)
    assert contradictions({**finding.ledger, "text": text}), "words and ledger must agree"


def test_other_lies_are_seen():
    best = order("S", {"layer 1": 0.4, "layer 2": 0.9}).ledger
    assert contradictions({**best, "says": ["layer 1", "layer 2"]})
    assert contradictions({**best, "text": best["text"].replace("0.900", "0.700")})
    said = meaning("It", 0.7, *BANDS).ledger
    assert contradictions({**said, "says": ["large", *said["says"][1:]]})
    assert contradictions({**said, "text": said["text"].replace("middling", "large")})


def test_the_interval_is_students_of_the_paired_differences():
    gap = np.array([1.0, 2.0, 3.0])
    low, high = paired_interval(gap + 5, [5.0, 5.0, 5.0])
    half = 4.302653 * 1.0 / 3**0.5  # t(2 degrees of freedom), by a table
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-6)
    wide = paired_interval(gap, 0.0, 2.0)
    assert wide[1] - wide[0] == pytest.approx(4 * half)
    assert paired_interval(torch.tensor(gap), torch.zeros(3)) == pytest.approx((2 - half, 2 + half))
    assert paired_interval(gap[:1], gap[:1]) is paired_interval(1.0, 2.0) is paired_interval(gap, gap[:2]) is None


def test_numbers_are_shown_in_three_digits():
    shown = [digits(v) for v in (0, 18.3222, 0.0034712, 1150, 99.96, -0.5, 1e-9, 3e7, float("nan"))]
    assert shown == ["0", "18.3", "0.00347", "1150", "100.0", "-0.500", "1.0e-09", "3.0e+07", "nan"]


def test_a_caption_reads_as_written_and_carries_its_findings():
    found = course("The loss", ("before", 2.0), ("after", 1.0))
    made = caption("A figure.", "", found, "What it means.")
    data, metadata = made._repr_mimebundle_()
    assert data["text/plain"] == "A figure. The loss falls from 2.00 (before) to 1.00 (after). What it means."
    assert data["text/markdown"] == f"*{data['text/plain']}*"
    assert metadata["text/markdown"]["findings"] == [found.ledger]


def test_the_report_puts_it_under_its_figure(tmp_path):
    made = caption("A figure.", course("The loss", ("before", 2.0), ("after", 1.0)))
    data, metadata = made._repr_mimebundle_()
    shown, words = code(FIGURE), code("caption(...)")
    pixel = {"image/png": FIGURE.split('"image/png": "')[1].split('"')[0]}
    shown.outputs = [nbformat.v4.new_output("display_data", pixel)]
    words.outputs = [nbformat.v4.new_output("execute_result", data, metadata=metadata, execution_count=1)]
    blocks = section_of(make_notebook(tmp_path, "00_x", shown, words), {}).blocks
    figure = next(block for block in blocks if block.kind == "figure")
    assert "The loss falls from 2.00" in figure.content.caption
    assert not [block for block in blocks if "caption(...)" in str(block.content)]


def test_results_without_an_owner_are_seen():
    assert ownerless("*Both models beat the fill; the paper finds more. Is it lower?*") == [
        "*Both models beat the fill;"
    ]
    assert ownerless("Attention falls with depth.") == ["Attention falls with depth."]
    assert ownerless("The lines above say so. If $a < b$ it would be lower.") == []
    assert clauses("See Eq. 5 here: yes.") == ["See Eq 5 here:", "yes."]
    source = 'caption("It grows.", order("what is higher", v), f"{n} falls.", "odd: lower." if x else "")'
    assert plain_words(source) == "It grows. 0 falls. odd: lower. "
