"""Strictness before anything starts: each wrong word gives its exact line and exit code 2, and nothing is created."""

import os
from pathlib import Path

import pytest

from lcmae_core.cli.main import main
from lcmae_core.config import LcmaeError
from lcmae_core.execute import Request, copy_notebooks, make_plan, notebook_folder
from lcmae_core.execute.discover import NotebookFile, select
from lcmae_core.execute.parameters import Parameter, assign, check_value, parse_value, read_parameters
from tests.execute.toys import PARAMETERS, code, make_notebook
from tests.loops import over


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LCMAE_PROFILE", raising=False)
    monkeypatch.delenv("LCMAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    notebooks = tmp_path / "notebooks"
    make_notebook(notebooks, "00_first", more="steps = 3\nname = 'mean'  # mean | sum\nshape = (8, 8)\nflip = True\n")
    make_notebook(notebooks, "03_third")
    return notebooks


ERRORS = [
    (["03_thrd"], "unknown notebook '03_thrd': did you mean '03_third'?"),
    (["9"], "unknown notebook '9': expected one of: 00, 03"),
    (["-p", "mask_rato=0.5"], "unknown parameter 'mask_rato' (= 0.5): did you mean 'mask_ratio'?"),
    (["-p", "mask_ratio=half"], "mask_ratio: got 'half' (str) for 00_first, expected float as its default 0.75"),
    (["-p", "steps=1.5"], "steps: got 1.5 (float) for 00_first, expected int as its default 3"),
    (["-p", "steps=true"], "steps: got True (bool) for 00_first, expected int as its default 3"),
    (["-p", "flip=1"], "flip: got 1 (int) for 00_first, expected bool as its default True"),
    (["-p", "name=men"], "name: got 'men' for 00_first, did you mean 'mean'?"),
    (["-p", "shape=[1,'a']"], "shape: got [1, 'a'] (list) for 00_first, expected tuple as its default (8, 8)"),
    (["-p", "mask_ratio"], "-p: got 'mask_ratio', expected name=value, such as mask_ratio=0.5"),
    (["--profile", "quik"], "unknown profile 'quik': did you mean 'quick'?"),
    (["-p", "profile=quik"], "unknown profile 'quik': did you mean 'quick'?"),
    (["-p", "seed=x"], "seed: got 'x' (str), expected int"),
    (["--seed", "-1"], "seed: got -1, expected a number of at least 0"),
    (["--seed", "1", "-p", "seed=2"], "seed: got 1 by --seed and 2 by -p, expected one of the two"),
    (["--data", "foldr:/x"], "data: got 'foldr:/x', did you mean 'folder:'?"),
    (["--data", "folder:"], "data: got 'folder:', expected something after 'folder:'"),
    (["--data", "folder:gone"], "data: got 'folder:gone', expected a folder or file that exists"),
    (["--jobs", "0"], "--jobs: got 0, expected at least 1"),
    (["--slurm", "a=1"], "--slurm: got 'a=1' with --executor local, expected --executor slurm"),
    (["--profle", "quick"], "unknown option '--profle' of lcmae run: did you mean '--profile'?"),
]


@over(("words", "line"), ERRORS)
def test_each_error_is_one_line_and_creates_nothing(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["run", "--notebooks", str(folder), "--out", "made", *words])
    assert error.value.code == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"
    assert sorted(os.listdir(folder.parent)) == ["notebooks"]


def test_an_output_folder_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    with pytest.raises(SystemExit) as error:
        main(["run", "--notebooks", str(folder), "--out", "file/below"])
    assert error.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("lcmae: error: out: got ") and "expected a folder that can be written" in line  # noqa: PT018
    assert Path("file").read_text() == ""


def test_the_environment_is_checked_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCMAE_PROFILE", "qick")
    with pytest.raises(ValueError, match="did you mean 'quick'"):
        make_plan(Request(notebooks=str(folder)))
    monkeypatch.setenv("LCMAE_PROFILE", "smoke")
    monkeypatch.setenv("LCMAE_DATA", "folder:gone")
    with pytest.raises(ValueError, match="data: got 'folder:gone'"):
        make_plan(Request(notebooks=str(folder), out="o"))


def test_a_parameter_goes_to_those_that_have_it(folder: Path) -> None:
    plan = make_plan(Request(parameters={"steps": 5, "mask_ratio": 0.5}, notebooks=str(folder), out="o", seed=4))
    assert plan.notes == ("steps: not a parameter of 03, passed to the others",)
    assert plan.parameters["00_first"]["steps"] == 5
    assert "steps" not in plan.parameters["03_third"]
    assert plan.parameters["03_third"]["mask_ratio"] == 0.5
    assert plan.parameters["03_third"]["seed"] == 4
    assert plan.parameters["03_third"]["out"] == str(Path("o").resolve())


def test_an_integer_will_do_for_a_float(folder: Path) -> None:
    shares, _ = assign({"mask_ratio": 1}, select((), folder))
    assert isinstance(shares["03_third"]["mask_ratio"], float)


@over("value", [0, 1, 1.5])
def test_a_setting_out_of_range_stops_the_plan(folder: Path, value: float) -> None:
    with pytest.raises(LcmaeError, match=f"mask_ratio: got {value}, expected "):
        make_plan(Request(parameters={"mask_ratio": value}, notebooks=str(folder), out="o"))
    assert not Path("o").exists()


def test_a_folder_without_images_stops_the_plan(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LcmaeError, match="no image in it"):
        make_plan(Request(data=f"folder:{tmp_path / 'empty'}", notebooks=str(folder), out="o"))
    with pytest.raises(LcmaeError, match="did you mean 'folder:"):
        make_plan(Request(data=str(tmp_path / "empty"), notebooks=str(folder), out="o"))


def test_names_select_in_the_order_given(folder: Path) -> None:
    plan = make_plan(Request(names=("3", "00_first.ipynb", "03"), notebooks=str(folder), out="o"))
    assert [n.number for n in plan.notebooks] == ["03", "00"]


@over(("text", "value"), [
        ("0.5", 0.5), ("1e-4", 1e-4), ("112", 112), ("true", True), ("False", False), ("null", None), ("None", None),
        ("[1, 2]", [1, 2]), ("(1, 2)", (1, 2)), ("[true, 1e-3]", [True, 1e-3]), ('"112"', "112"), ("'a'", "a"),
        ("photos", "photos"), ("folder:/a b", "folder:/a b"), ("007", "007"), ("NaN", "NaN"), ("yes", "yes"), ("", ""),
        ("b'x'", "b'x'"), ('{"a": 1}', {"a": 1}),
    ])  # fmt: skip
def test_values_are_read_as_yaml_1_2_and_python(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_a_list_becomes_a_tuple_and_none_takes_anything() -> None:
    assert check_value(Parameter("shape", (8, 8)), [4, 4], "00") == (4, 4)
    assert check_value(Parameter("any", None), [1, "a"], "00") == [1, "a"]
    with pytest.raises(ValueError, match="quote it: name='\"3\"'"):
        check_value(Parameter("name", "mean"), 3, "00")


def test_parameters_cell(tmp_path: Path) -> None:
    path = make_notebook(tmp_path, "00_x", code("not_a_parameter = 1"), more="rate: float = 1e-3\nhalf = 1 / 2\n")
    declared = read_parameters(NotebookFile(path))
    assert list(declared) == ["profile", "data", "seed", "out", "mask_ratio", "rate", "half"]
    assert declared["profile"].choices == ("smoke", "quick", "desk", "lab", "paper")
    assert declared["data"].choices == ()
    assert declared["rate"].default == 1e-3
    assert check_value(declared["half"], "anything", "00") == "anything"
    assert "mask_ratio = 0.75" in PARAMETERS


def test_copies_of_the_collection(folder: Path) -> None:
    copies = copy_notebooks("mine", folder)
    assert [c.name for c in copies] == ["00_first.ipynb", "03_third.ipynb"]
    copy_notebooks("mine", folder)
    copies[0].write_text("changed")
    with pytest.raises(ValueError, match="which was changed"):
        copy_notebooks("mine", folder)
    assert copies[0].read_text() == "changed"
    with pytest.raises(ValueError, match="expected a folder with numbered notebooks"):
        notebook_folder("empty")


def test_a_broken_notebook_is_named(folder: Path) -> None:
    (folder / "04_broken.ipynb").write_text("<html>")
    with pytest.raises(ValueError, match=r"04_broken.ipynb', expected a readable .ipynb file"):
        make_plan(Request(notebooks=str(folder), out="o"))
    assert not Path("o").exists()
