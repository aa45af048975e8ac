"""The README can be followed: its commands, options, links and notebooks exist.

Every command of a code block is parsed by the command line itself, every relative link and heading is looked up, and
every row of a table of notebooks names one that is there, or says "planned".
"""

import re
import shlex
from pathlib import Path

from lcmae_core.cli.main import COMMANDS, parse
from lcmae_core.config import LEAVES
from lcmae_core.execute.discover import all_notebooks
from lcmae_core.execute.parameters import read_parameters
from tests.loops import over

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
SHELL = ("", "bash", "sh", "shell", "console")
FENCE = re.compile(r"^ *```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")
NOTEBOOKS = {n.number: n for n in all_notebooks(ROOT / "notebooks")}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def code_commands(page: Path) -> list[str]:
    """The commands of shell blocks and of inline code, one by one, without prompt, comment and environment."""
    text = page.read_text(encoding="utf-8")
    lines = [line for language, body in FENCE.findall(text) if language in SHELL
             for line in body.replace("\\\n", " ").splitlines()]  # fmt: skip
    lines += re.findall(r"`((?:make|lcmae) [^`\n]+)`", FENCE.sub("", text))
    parts = [part.strip() for line in lines for part in re.split(r"&&|;", line.split(" #")[0])]
    return [re.sub(r"^(\$ )?([A-Z_]+=\S+ )*", "", part) for part in parts]


def own_commands(page: Path) -> list[list[str]]:
    """The commands that are ours, as words."""
    return [shlex.split(c) for c in code_commands(page) if re.match(r"(make|lcmae|\.ci/run)\b", c)]


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def tables(page: Path) -> list[list[list[str]]]:
    """Every table as rows of cells, the header first."""
    blocks = re.findall(r"(?:^\|.*\|[ ]*\n)+", page.read_text(encoding="utf-8") + "\n", re.MULTILINE)
    rows = [[[c.strip() for c in line.strip().strip("|").split("|")] for line in b.splitlines()] for b in blocks]
    return [[table[0], *table[2:]] for table in rows]


def test_the_readme_says_how_to_start() -> None:
    words = own_commands(PAGES[0])
    assert ["make", "run"] in words
    assert ["make", "test"] in words


@over("page", PAGES)
def test_commands_exist(page: Path) -> None:
    for words in own_commands(page):
        if words[0] == "make":
            assert {w for w in words[1:] if "=" not in w} <= TARGETS, words
        elif words[0] == "lcmae" and "--help" not in words:
            check_lcmae(words[1:])
        assert words[0] != ".ci/run" or (ROOT / ".ci" / "run").exists()


def check_lcmae(words: list[str]) -> None:
    """Command, options, notebooks and names of parameters."""
    options = parse(words)
    assert options.command in COMMANDS
    names = {assignment.partition("=")[0] for assignment in getattr(options, "parameters", [])}
    if options.command == "train":
        assert names <= set(LEAVES) | {"out"}, words
    if options.command == "run":
        assert {Path(n).name[:2] for n in options.names} <= set(NOTEBOOKS), words
        assert names <= {name for notebook in NOTEBOOKS.values() for name in read_parameters(notebook)}, words


@over("page", [*PAGES, ROOT / "data" / "README.md", ROOT / "outputs" / "README.md"])  # fmt: skip
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    anchors = {slug(h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for link in ("".join(found) for found in LINK.findall(text)):
        if not re.match(r"https?:|mailto:", link):
            path, _, anchor = link.partition("#")
            assert (page.parent / path).exists(), link
            assert path or anchor in anchors, link


def test_tables_name_notebooks_that_exist() -> None:
    found = [(t, i) for t in tables(PAGES[0]) for i, c in enumerate(t[0]) if re.fullmatch("notebooks?", c.lower())]
    assert found, "expected a table with a column 'notebook'"
    for table, column in found:
        for row in table[1:]:
            numbers = re.findall(r"\b\d\d\b", re.sub(r"\([^)]*\)", "", row[column]))
            planned = "planned" in " ".join(row).lower()
            assert planned or (numbers and set(numbers) <= set(NOTEBOOKS)), row


def test_every_notebook_is_listed() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert all(f"notebooks/{n.path.name}" in text for n in NOTEBOOKS.values())
