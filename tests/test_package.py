"""The wheel carries everything and runs outside a checkout; every direct dependency has a version that passed.

`python tests/test_package.py > tested-versions.txt` writes those versions, after the tests have passed.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTED = ROOT / "tested-versions.txt"
NOTEBOOKS = sorted(p.name for p in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def direct_dependencies() -> dict[str, str]:
    """Name -> version here of every package that pyproject.toml names."""
    names = {re.match(r"[\w.-]+", line).group().lower() for line in metadata.requires("lcmae-core") or ()}
    return {name: metadata.version(name) for name in sorted(names - {"lcmae-core"})}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network from a copy of the sources, by way of the sdist as `python -m build` does."""
    source, made = tmp_path_factory.mktemp("source") / "lcmae", tmp_path_factory.mktemp("dist")
    kept = shutil.ignore_patterns(".*", "outputs", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, source, ignore=kept)
    shutil.rmtree(source / "data")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert len(list(made.glob("*.tar.gz"))) == 1
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip would fill it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def lcmae(unpacked: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked package's command in a folder outside the repository."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LCMAE_")}
    environment = kept | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lcmae_core.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    package = ROOT / "lcmae_core"
    code = {p.relative_to(ROOT).as_posix() for e in ("py", "js", "css", "html") for p in package.rglob(f"*.{e}")}
    assert code <= names
    demo = {f"lcmae_core/models/demo/{n}" for n in ("model.safetensors", "settings.json", "manifest.json", "card.json")}
    assert demo <= names
    assert {n for n in names if n.endswith(".ipynb")} == {f"lcmae_core/notebooks/{n}" for n in NOTEBOOKS}
    assert not [n for n in names if n.startswith(("tests", "setup", "notebooks", "outputs")) or "__pycache__" in n]
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_commands_work_outside_the_repository(unpacked: Path, tmp_path: Path) -> None:
    assert lcmae(unpacked, tmp_path, "--help").returncode == 0
    done = lcmae(unpacked, tmp_path, "notebooks", "mine")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == NOTEBOOKS
    for name in NOTEBOOKS:
        assert (tmp_path / "mine" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()


@pytest.mark.slow
def test_a_notebook_runs_outside_the_repository(unpacked: Path, tmp_path: Path) -> None:
    done = lcmae(unpacked, tmp_path, "run", "00", "--profile", "smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "outputs" / "smoke"
    assert (out / NOTEBOOKS[0]).exists()
    assert '"unknown"' in (out / "results" / "00.json").read_text(), "no commit is claimed outside a checkout"
    assert str(ROOT) not in (out / "report.html").read_text()


def test_a_tested_version_of_every_direct_dependency() -> None:
    tested = dict(line.split("==") for line in TESTED.read_text().splitlines() if not line.startswith("#"))
    assert set(tested) == set(direct_dependencies()), "python tests/test_package.py > tested-versions.txt"


def test_conda_and_citation_agree_with_the_package() -> None:
    assert f"version: {metadata.version('lcmae-core')}\n" in (ROOT / "CITATION.cff").read_text()
    assert "- -e .[dev]" in (ROOT / "environment.yml").read_text()


if __name__ == "__main__":
    print(f"# Versions that passed the tests together, with Python {sys.version.split()[0]}; bounds: pyproject.toml")
    print("\n".join(f"{name}=={version}" for name, version in direct_dependencies().items()))
