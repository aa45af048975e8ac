"""Every claim is there as the papers state it and is judged by its numbers alone: reproduced where they are as
published, not reproduced where they are the other way round, undecided where they do not decide, and open, with what is
missing named, where they are not there. The first rules stay, and nothing judges by them."""

import re
from pathlib import Path

import numpy as np
import pytest

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.studies.claims import CLAIMS, UNJUDGED
from lcmae_core.studies.claims.superseded import SUPERSEDED
from lcmae_core.studies.scoreboard import score
from lcmae_core.studies.trials import jobs, rows
from tests.studies.claim_records import NO_LABELS, holds, judge_by, named, right

PUBLISHED = {
    "C1": "layer 1 about 0.9", "C2": "shape only", "C3": "collapse",
    "C4": "82.2, 82.5 (MAE 82.9, random 78.6: .84 and .91 of the gain)",
    "C5": "a 83.0, b 82.9, e 83.1, f 82.8 (.02 to .05 of the gain)",
    "C6": "transformer 82.9, average 82.5, convolution 82.9", "C7": "shape only", "C8": "shape only",
    "C9": "random 78.6; AE 16/48/80/112: 78.7 81.2 81.5 81.8; MAE 82.9 (.02 .60 .67 .74 of the gain)",
    "C10": "5.7 5.7 5.6 5.6 against 55.4", "C11": "shape only",
    "C12": "81.8 against 78.6 (full 82.9: .74 of the gain)", "C13": "qualitative", "C14": "identity",
    "C15": "not available", "C16": "linear probe at .1 .25 .5 .75 .9: 47.45 53.58 60.07 67.41 62.97",
    "C17": "linear probe at 8, 16, 32 px: 62.57 68.96 73.31 (the text says that 32 hurts)",
    "C18": "shape bias .135 .255 .246 .256 .201", "C19": "theorem", "C20": "no number",
    "C21": "a 83.0 above g 82.5, f 82.8 above d 82.2", "C22": "g 82.5 above d 82.2, a 83.0 above f 82.8",
    "C23": "no collapse (83.1)", "C24": "no number", "C25": "no number", "C26": "no number",
}  # fmt: skip
ACCURACIES = {"C5", "C6", "C9", "C10", "C12", "C16", "C17", "C21", "C22", "C25", "C26"}
"""Claims about accuracies alone, which no profile as small as quick judges."""
FLIPPED = {"C6": ("partly", {"transformer - average, fine-tuned: above 0"})}
"""Claims whose tests bound one number from both sides: what the other way round gives, and which tests hold there."""
every_claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)


def test_every_claim_is_there_as_published():
    assert {claim.name: claim.published for claim in CLAIMS} == PUBLISHED
    assert [claim.name for claim in CLAIMS] == [*PUBLISHED] == [f"C{n}" for n in range(1, 27)]
    for claim in CLAIMS:
        assert claim.tests, claim.name
        assert claim.where, claim.name
        texts = [test.text for test in (*claim.tests, *claim.controls)]
        assert len(set(texts)) == len(texts), claim.name


def test_the_first_rules_stay_and_nothing_judges_by_them():
    assert [claim.name for claim in SUPERSEDED] == [f"C{n}" for n in range(1, 20)]
    assert not {id(claim) for claim in SUPERSEDED} & {id(claim) for claim in CLAIMS}
    package = Path(__file__).parents[2] / "lcmae_core"
    importing = re.compile(r"^\s*(from|import)\s.*superseded", re.MULTILINE)
    assert [f.name for f in package.rglob("*.py") if importing.search(f.read_text())] == []


def test_what_no_rule_judges_has_its_reason():
    assert len(UNJUDGED) == 3
    assert all(len(statement.split()) > 3 and len(reason.split()) > 3 for statement, reason in UNJUDGED.items())
    assert not UNJUDGED.keys() & {claim.statement for claim in CLAIMS}


@every_claim
def test_published_numbers_reproduce_it_and_flipped_ones_do_not(claim):
    said, flipped = judge_by(claim), judge_by(claim, 1)
    assert (said.verdict, said.why) == ("reproduced", f"{len(claim.tests)} hold"), said
    expected, still = FLIPPED.get(claim.name, ("not reproduced", set()))
    assert flipped.verdict == expected, flipped
    assert {text for text, held in holds(flipped).items() if held is not False} == still
    assert (len(said.outcomes), len(said.controls)) == (len(claim.tests), len(claim.controls))
    assert {o.estimate.seeds for o in said.outcomes} == {3}


def test_an_average_that_is_better_is_not_a_little_worse():
    """C6 from its other side: nothing is lost, so the test that something is fails."""
    said = judge_by(named("C6"), change=lambda cell, _: right(84.0) if cell.row == "average" else None)
    assert said.verdict == "partly"
    assert [text for text, held in holds(said).items() if not held] == ["transformer - average, fine-tuned: above 0"]


@every_claim
def test_one_seed_decides_nothing(claim):
    for side in (0, 1):
        said = judge_by(claim, side, seeds=(1,))
        assert (said.verdict, said.why) == ("unresolved", "one seed: the interval covers images alone")
        assert len(said.outcomes) == len(claim.tests)


@every_claim
def test_nothing_measured_is_not_yet_run(claim):
    said = judge_by(claim, only=lambda cell: False)
    assert (said.verdict, said.outcomes) == ("not yet run", ())
    assert said.why.startswith("missing: ")
    assert claim.tests[0].cells[0].study in said.why or claim.tests[0].gates


@every_claim
def test_a_missing_part_is_named_and_leaves_the_rest_open(claim):
    """Without each row of a study in turn, where some tests can still be judged: never reproduced, and said why."""
    for study, row, measure in sorted({cell[:3] for test in claim.tests for cell in test.cells}):
        said = judge_by(claim, only=lambda c, gone=(study, row, measure): c[:3] != gone)
        if not said.outcomes:
            assert (said.verdict, said.why) == ("not yet run", f"missing: {measure} of {row} ({study})")
            continue
        absent = len(claim.tests) - len(said.outcomes)
        assert absent > 0
        assert said.verdict == "unresolved", (study, row)
        assert f"{absent} not yet run (missing: {measure} of {row} ({study}))" in said.why


def test_collapse_alone_leaves_accuracies_open():
    """What the first runs of desk leave of C4: both collapse tests of both rows are decided, the claim is not."""
    for side, held in ((0, True), (1, False)):
        said = judge_by(named("C4"), side, only=lambda cell: cell.study == "collapse")
        assert said.verdict == "unresolved"
        assert [o.holds for o in said.outcomes] == [held] * 4
        assert [" in (d) " in o.test.text for o in said.outcomes] == [True, True, False, False]
        assert said.why.endswith("2 not yet run (missing: finetune of b (table1))")
        assert len(said.controls) == len(named("C4").controls)


def test_a_missing_control_is_named_and_decides_nothing():
    claim = named("C25")
    said = judge_by(claim, only=lambda cell: (cell.study, cell.measure) != ("depth", "finetune"))
    assert said.verdict == "reproduced"
    assert said.why == "2 hold; 3 controls missing (missing: finetune of 1 (depth))"
    assert said.controls == ()


@every_claim
def test_a_small_profile_says_signs_and_judges_no_accuracy(claim):
    words = [judge_by(claim, side, profile="quick", seeds=(0,)).verdict for side in (0, 1)]
    assert words == (["not judged"] * 2 if claim.name in ACCURACIES else ["sign right", "sign wrong"])
    assert judge_by(claim, profile="smoke", seeds=(0,)).verdict == "not judged"


def test_without_labels_accuracies_are_not_judged():
    for name in ("C5", "C10"):
        said = judge_by(named(name), left_out=("finetune", "probe"))
        assert (said.verdict, said.why) == ("not judged", NO_LABELS)
    some = judge_by(named("C15"), left_out=("probe",))
    assert (some.verdict, some.why) == ("unresolved", f"3 hold; {NO_LABELS}"), "what is left out holds nothing"


def test_wide_intervals_are_unresolved_and_halves_are_partly():
    spread = np.random.default_rng(0).normal(0, 900.0, (16, 4))

    def noisy(cell, seed):
        return (spread * (-1) ** seed).tolist() if cell.row == "MAE" and cell.key.startswith("distance") else None

    assert judge_by(named("C7"), change=noisy).verdict == "unresolved"
    half = judge_by(named("C14"), change=lambda cell, _: [0.1] * 16 if cell.key == "in_view_own_untrained" else None)
    assert half.verdict == "partly"


def test_numbers_of_other_data_are_one_line(tmp_path):
    base = replace(profile("lab"), out=str(tmp_path))
    for job in jobs(["fig5"], base, "lab", (0, 1)):
        job.record.begin(None, job.case.settings)
        far = [[30.0] * 4] * (3 if job.row == "MAE" and job.case.settings.seed == 1 else 16)
        job.record.note("distance", {"distance": far}, 1.0, {"device": "CPU"})
    with pytest.raises(LcmaeError, match=r"got \(16, 4\) and \(3, 4\) for distance of MAE|got \(3, 4\) and \(16, 4\)"):
        score(base, "lab", (0, 1), make=False)
    assert len(rows("fig5", base, "lab", (0, 1), make=False)["MAE"]) == 2


def test_seeds_that_one_row_lacks_do_not_count():
    said = judge_by(named("C7"), lacking=lambda cell, seed: cell.row == "DINO" and seed == 3)
    assert [o.estimate.seeds for o in said.outcomes] == [2, 2, 3, 3]
    assert said.verdict == "reproduced"
