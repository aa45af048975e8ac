"""The claims that the report opens with.

Claims: verdicts are those that notebook 10 recorded, beside the shipped records; claims of which nothing was recorded
are not yet run; without notebook 10 the records of studies speak; a folder without either has no scoreboard.
"""

import json
import shutil

from lcmae_core.store.machine import REPOSITORY
from lcmae_core.studies.claims import CLAIMS
from lcmae_core.studies.front import scoreboard


def test_recorded_verdicts_stand_beside_the_shipped_ones(tmp_path):
    (tmp_path / "results").mkdir()
    values = {"C01": {"value": "sign wrong"}, "C14": {"value": "sign right"}}
    (tmp_path / "results" / "10.json").write_text(json.dumps({"notebook": "10", "values": values}))
    board = scoreboard(tmp_path, "quick")
    assert board.profiles[:2] == ("quick", "desk")
    assert [score.name for score in board.scores] == [claim.name for claim in CLAIMS]
    verdicts = {score.name: score.verdicts for score in board.scores}
    assert verdicts["C1"][0] == "sign wrong"
    assert verdicts["C14"][0] == "sign right"
    assert verdicts["C2"][0] == "not yet run"
    assert any(verdict[1] == "reproduced" for verdict in verdicts.values()), "desk judged some"
    assert dict(board.counts())["quick"].startswith(f"{len(CLAIMS) - 2} not yet run")


def test_records_of_studies_speak_for_themselves(tmp_path):
    shutil.copytree(REPOSITORY / "outputs" / "desk" / "results", tmp_path / "results")
    board = scoreboard(tmp_path, "desk")
    assert board.profiles[0] == "desk"
    assert any(score.verdicts[0] == "reproduced" for score in board.scores)


def test_an_empty_folder_has_none(tmp_path):
    assert scoreboard(tmp_path, "quick") is None
