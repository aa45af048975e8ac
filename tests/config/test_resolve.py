"""Profile, data, seed, device and output folder have one answer, whichever command or notebook asks; what nothing reads
is said.

Claims: an option is the same as a parameter; both go before the environment, and that before the profile's own; the
same thing said twice is fine, two things are one line that names both, in every command; a relative path means the same
folder. A setting that is asked for by name and that its method, study or evaluation does not read stops the command or
is named, while what profiles and studies set for all methods goes on working, and no digest changes.
"""

import json
from pathlib import Path

import pytest

from lcmae_core import cli
from lcmae_core.cli.unread import refuse_unread_by
from lcmae_core.config import LEAVES, UNUSED, LcmaeError, digest, profile, replace, unused
from lcmae_core.config.resolve import Asked, project_root
from lcmae_core.config.unread import refuse_unread
from lcmae_core.store.results import Notebook
from lcmae_core.studies import STUDIES
from tests.data.made_pictures import write_folder
from tests.execute.toys import make_notebook

BATCH = {"smoke": 8, "quick": 16, "lab": 256, "paper": 1024}
COMMANDS = ("run", "train", "study", "status", "evaluate", "notebook", "code")


class Seen(Exception):  # noqa: N818  # no error: what a command was about to work with
    """Profile, data, seed and folder that arrived."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty current folder with two folders of pictures, a toy notebook, and no environment."""
    for name in ("LCMAE_PROFILE", "LCMAE_DATA", "LCMAE_OUT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("one", "two"):
        write_folder(tmp_path / name, [f"{i}.png" for i in range(3)])
    make_notebook(tmp_path / "notebooks", "00_toy")
    monkeypatch.chdir(tmp_path)
    from lcmae_core import execute
    from lcmae_core.cli import evaluate, study, train

    def settings_seen(settings):
        name = next(name for name, size in BATCH.items() if settings.optim.batch_size == size)
        raise Seen(name, settings.data.source, settings.seed, settings.runtime.out)

    def plan_seen(plan, **_):
        share = plan.parameters["00_toy"]
        raise Seen(share["profile"], share.get("data") or "photos", share.get("seed", 0), share["out"])

    monkeypatch.setattr(execute, "run_notebooks", plan_seen)
    monkeypatch.setattr(train, "train", lambda settings, **_: settings_seen(settings))
    monkeypatch.setattr(study, "run_studies", lambda names, base, *_, **__: settings_seen(base))
    monkeypatch.setattr(study, "print_status", lambda names, base, *_, **__: settings_seen(base))
    monkeypatch.setattr(evaluate, "origin_of", lambda source, base, asked: settings_seen(base))
    return tmp_path


def arrived(command, options, parameters=None):
    """What a command works with, or the one line that it stops with."""
    parameters = parameters or {}
    try:
        if command == "notebook":  # a parameters cell has one route: what `lcmae run` writes into it
            asked = Asked(options, parameters)
            said = {"profile": asked.profile, "data": asked.data, "seed": asked.seed or 0, "out": str(asked.out)}
            settings = Notebook("00", "toy", **said).settings()
            return (asked.profile, settings.data.source, settings.seed, settings.runtime.out)
        if command == "code":
            asked = Asked(options, parameters)
            return (asked.profile, asked.data or "photos", asked.seed or 0, str(asked.out))
        words = {"run": ["run", "--notebooks", "notebooks"], "status": ["study", "status"],
                 "evaluate": ["evaluate", "untrained"]}.get(command, [command])  # fmt: skip
        words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        words += [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        cli.main(words)
    except Seen as seen:
        return seen.args
    except LcmaeError as error:
        return str(error)
    raise AssertionError("nothing arrived")


def line(command, options, parameters, capsys):
    """The one line on stderr of a command that is refused."""
    if command in ("notebook", "code"):
        return arrived(command, options, parameters)
    with pytest.raises(SystemExit) as stopped:
        arrived(command, options, parameters)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().removeprefix("lcmae: error: ")


def test_an_option_is_the_same_as_a_parameter_and_may_be_said_twice(home):
    said = {"profile": "smoke", "data": f"folder:{home / 'one'}", "seed": 3, "out": str(home / "o")}
    for command in COMMANDS:
        for options, parameters in ((said, {}), ({}, said), (said, said), ({}, said | {"source": "folder:one"})):
            found = arrived(command, options, parameters)
            assert found == ("smoke", f"folder:{home / 'one'}", 3, str(home / "o")), (command, options, parameters)


def test_a_relative_path_means_the_current_folder_in_every_command(home):
    for command in COMMANDS:
        found = arrived(command, {"profile": "smoke", "data": "folder:two", "out": "o"}, {"out": str(home / "o")})
        assert found == ("smoke", f"folder:{home / 'two'}", 0, str(home / "o")), command


def test_what_is_asked_for_goes_before_the_environment_and_that_before_the_profile(home, monkeypatch):
    own = ("quick", "photos", 0, str(project_root() / "outputs" / "quick"))
    assert {command: arrived(command, {}) for command in COMMANDS} == dict.fromkeys(COMMANDS, own)
    for name, value in (("PROFILE", "smoke"), ("DATA", "folder:one"), ("OUT", "there")):
        monkeypatch.setenv(f"LCMAE_{name}", value)
    around = ("smoke", f"folder:{home / 'one'}", 0, str(home / "there"))
    assert {command: arrived(command, {}) for command in COMMANDS} == dict.fromkeys(COMMANDS, around)
    over = ("quick", f"folder:{home / 'two'}", 5, str(home / "here"))
    for route in ({"options": {}}, {"parameters": {}}):
        said = {"profile": "quick", "data": "folder:two", "seed": 5, "out": "here"}
        given = {"options": {}, **dict.fromkeys(route, said)}
        assert {command: arrived(command, **given) for command in COMMANDS} == dict.fromkeys(COMMANDS, over)
    monkeypatch.setenv("LCMAE_DATA", "")  # set to nothing is not set
    assert arrived("train", {})[1] == profile("smoke").data.source


def test_two_values_for_one_thing_are_refused_by_every_command(home, capsys):
    cases = [
        ({"seed": 4}, {"seed": 3}, "seed: got 4 by --seed and 3 by -p, expected one of the two"),
        ({"profile": "smoke"}, {"profile": "lab"}, "profile: got 'smoke' by --profile and 'lab' by -p, expected one"),
        ({"out": "a"}, {"out": "b"}, "out: got 'a' by --out and 'b' by -p, expected one of the two"),
        ({"data": "photos"}, {"data": "folder:one"}, "data: got 'photos' by --data and 'folder:one' by -p, expected"),
        ({"data": "photos"}, {"source": "folder:one"}, "'photos' by --data and 'folder:one' by -p source, expected"),
        ({}, {"data": "folder:two", "source": "folder:one"}, "'folder:two' by -p and 'folder:one' by -p source"),
    ]
    for command in COMMANDS:
        for options, parameters, expected in cases:
            assert expected in line(command, options, parameters, capsys), (command, options, parameters)
    for command in ("train", "study", "status", "evaluate"):
        said = line(command, {"device": "cuda"}, {"device": "cpu"}, capsys)
        assert said == "device: got 'cuda' by --device and 'cpu' by -p, expected one of the two", command


def test_what_is_wrong_is_the_same_line_everywhere(home, capsys):
    cases = [
        ({}, {"seed": "x"}, "seed: got 'x' (str), expected int"),
        ({"seed": -1}, {}, "seed: got -1, expected a number of at least 0"),
        ({}, {"seed": "true"}, "seed: got "),
        ({"profile": "qick"}, {}, "unknown profile 'qick': did you mean 'quick'?"),
        ({}, {"profile": "qick"}, "unknown profile 'qick': did you mean 'quick'?"),
        ({"data": "folder:gone"}, {}, "data: got 'folder:gone', expected a folder or file that exists"),
        ({"data": ""}, {}, "data: got '', expected one of: photos, folder:"),
        ({"out": ""}, {}, "out: got '', expected a folder"),
    ]
    for command in COMMANDS:
        for options, parameters, expected in cases:
            assert line(command, options, parameters, capsys).startswith(expected), (command, options, parameters)


def test_report_and_doctor_look_into_the_same_folder(home, monkeypatch, capsys):
    from lcmae_core.cli import doctor
    from lcmae_core.viewer import report

    monkeypatch.setattr(report, "build_report", lambda out, drawn, claims: out)
    monkeypatch.setenv("LCMAE_DATA", "folder:gone")  # neither reads data
    for words, variables, folder in (
        (["--out", "made"], {}, home / "made"),
        ([], {"LCMAE_OUT": "made"}, home / "made"),
        (["--out", "made"], {"LCMAE_OUT": "other"}, home / "made"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / "ledger.json").write_text("{}")
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            assert cli.main(["report", *words]) == 0
            assert capsys.readouterr().out.strip() == str(folder)
            assert next(doctor.check_storage(words[1] if words else None)).name == str(folder)


def test_a_notebook_opened_by_hand_keeps_its_folder_in_the_project(home, monkeypatch):
    monkeypatch.setenv("LCMAE_OUT", "from-the-environment")
    root = project_root()
    try:
        assert Notebook("00", "toy", "smoke").folder == root / "from-the-environment"
        monkeypatch.delenv("LCMAE_OUT")
        assert Asked(base=root, parameters={"out": "x"}).out == root / "x"
    finally:
        (root / "from-the-environment").rmdir()
    with pytest.raises(LcmaeError, match="seed: got True"):
        Notebook("00", "toy", "smoke", seed=True, out=str(home / "o")).settings()


def test_a_method_refuses_by_name_what_it_does_not_read(home, capsys):
    cases = [
        ({"method": "supervised", "mask_ratio": 0.5}, "mask_ratio: got 0.5, which method='supervised' does not read "
         "(method='mae' does), did you mean 'mlp_ratio'?"),
        ({"method": "dino", "block": 3}, "block: got 3, which method='dino' does not read (method='ae' does), "),
        ({"local_crops": 2}, "local_crops: got 2, which method='mae' does not read (method='dino' does), "),
        ({"decoder_sigma": 2.0}, "which decoder='transformer' does not read (decoder='average' does), "),
        ({"method": "siamese", "positives": "position", "positive_radius": 1.0},
         "which positives='position' does not read (positives='geometry' does), "),
    ]  # fmt: skip
    for given, expected in cases:
        said = line("train", {"profile": "smoke"}, given, capsys)
        assert expected in said, given
        assert said.count("\n") == 0


def test_whatever_is_unread_is_refused_and_whatever_is_read_is_not():
    for method in UNUSED:
        settings = replace(profile("smoke"), method=method)
        said = {name: getattr(getattr(settings, group) if group else settings, name) for name, group in LEAVES.items()}
        refuse_unread(settings, {name: value for name, value in said.items() if name not in unused(settings)})
        for name in unused(settings):
            with pytest.raises(LcmaeError, match=f"^{name}: got .* does not read"):
                refuse_unread(settings, {name: said[name]})


def test_what_profiles_and_studies_set_for_all_methods_goes_on_working():
    for name in BATCH:
        for method in UNUSED:
            settings = replace(profile(name), method=method)
            refuse_unread(settings, {})
            other = {leaf: value for leaf, value in (("decoder_sigma", 2.0), ("dino_dim", 7), ("mask_ratio", 0.5))
                     if leaf in unused(settings)}  # fmt: skip
            plain = replace(settings, other)
            assert digest(plain, "data") == digest(settings, "data")
        assert all(study.rows(profile(name), name) for study in STUDIES.values())


def test_a_study_names_what_some_of_its_runs_leave_alone_and_refuses_what_all_do(home, capsys):
    cases = [
        (["fig5"], "local_crops=3", "", "local_crops: got 3, which these studies set themselves, expected 2"),
        (["fig5"], "dino_dim=8", "dino_dim: not read, or set by itself, in fig5 (MAE, supervised); passed to", ""),
        (["fig6"], "dino_dim=8", "dino_dim: not read, or set by itself, in fig6\n", ""),
        (["fig6", "fig2"], "mask_ratio=0.3", "in fig6 (0.45, 0.6, 0.75, 0.9); passed to the others", ""),
        (["table1"], "mask_ratio=0.5", None, ""),
        (["fig6"], "mask_ratio=0.5", "", "mask_ratio: got 0.5, which these studies set themselves, expected 0.3, 0.45"),
        (["table1"], "hlv=1", "", "unknown setting 'hlv' (= 1)"),
        ([], "positive_radius=1.0", "in section32, ", ""),
    ]
    for names, assignment, noted, refused in cases:
        words = ["study", *names, "--profile", "smoke", "-p", assignment]
        with pytest.raises(SystemExit if refused else Seen):
            cli.main(words)
        said = capsys.readouterr().err
        if noted is None:
            assert said == "", words
        else:
            assert (refused or noted) in said, words


def test_an_evaluation_reads_its_recipe_the_data_and_the_encoder(home, capsys):
    for way, given, expected in (
        ("knn", "batch_size=4", "batch_size: got 4, which evaluate --by knn does not read, "),
        ("knn", "crop_scale=[.5,1]", "crop_scale: got [0.5, 1], which evaluate --by knn does not read, "),
        (
            "knn",
            "log_every=4",
            "log_every: got 4, which evaluate --by knn does not read, expected one of: cache_gb, channels, ",
        ),
        ("probe", "mask_ratio=0.5", "mask_ratio: got 0.5, which evaluate --by probe does not read, "),
        ("probe", "method=ae", "method: got 'ae', which evaluate --by probe does not read, "),
        ("finetune", "decoder_width=8", "decoder_width: got 8, which evaluate --by finetune does not read, "),
    ):
        with pytest.raises(SystemExit):
            cli.main(["evaluate", "untrained", "--by", way, "-p", given])
        assert expected in capsys.readouterr().err, (way, given)
    refuse_unread_by("knn", set(), {"image_size": 32, "heads": 2, "workers": 0, "train_images": 5})
    refuse_unread_by("probe", {"batch_size", "crop_scale"}, {"batch_size": 4, "crop_scale": (0.5, 1), "log_every": 1})


def test_an_evaluated_run_takes_what_was_asked_for_and_brings_the_rest(home, monkeypatch):
    from lcmae_core.cli.evaluate import settings_to_judge
    from lcmae_core.cli.train import settings_from

    known = replace(profile("smoke"), seed=1, train_images=3, mask_ratio=0.5, log_every=9)

    def judged(asked):
        found = settings_to_judge(known, settings_from(asked), asked)
        return found.seed, found.data.source, found.data.train_images, found.runtime.log_every, found.masking.mask_ratio

    assert judged(Asked()) == (1, "photos:160", None, 9, 0.5)
    assert judged(Asked({"seed": 5}, {"log_every": 7, "train_images": 2})) == (5, "photos:160", 2, 7, 0.5)
    monkeypatch.setenv("LCMAE_DATA", "folder:two")
    assert judged(Asked())[1] == f"folder:{home / 'two'}"
    assert judged(Asked({}, {"source": "photos"}))[1] == "photos"
    with pytest.raises(LcmaeError, match="width: got 7, expected 64, that of the run"):
        settings_to_judge(known, profile("smoke"), Asked(parameters={"width": 7}))


def test_a_notebook_of_another_method_refuses_too(home, capsys):
    make_notebook(home / "notebooks", "01_other", more="method = 'supervised'\n")
    said = line("run", {"profile": "smoke"}, {"method": "supervised", "mask_ratio": 0.5}, capsys)
    assert said.startswith("mask_ratio: got 0.5, which method='supervised' does not read")
    assert not (Path("outputs")).exists()


def test_every_notebook_uses_each_of_its_parameters():
    from lcmae_core.execute.discover import all_notebooks, cell_source
    from lcmae_core.execute.parameters import read_parameters

    silent = {}
    for notebook in all_notebooks(project_root() / "notebooks"):
        cells = [c for c in notebook.content["cells"] if c["cell_type"] == "code"]
        rest = "\n".join(cell_source(c) for c in cells if "parameters" not in c["metadata"].get("tags", []))
        silent |= {f"{notebook.name}: {name}": "" for name in read_parameters(notebook) if name not in rest}
    assert not silent, json.dumps(sorted(silent))
