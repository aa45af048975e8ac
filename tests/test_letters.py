"""One letter, one meaning, in every module and on the page of CONTRIBUTING.md that says them all.

Claims: the page and this table name the same letters and mean the same; every module that has a letter in a shape,
annotated or in a comment, says it in its first docstring, in words that are the page's, and says where the page is.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.loops import over

ROOT = Path(__file__).parents[1]
MODULES = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / "lcmae_core").rglob("*.py"))}
MEANINGS = {
    "B": "images", "C": "channels", "D": "width", "D'": "width", "E": "width", "G": "groups of images",
    "H": "heads", "H x W": "pixels", "K": "(kept|visible) patches", "L": "layers", "M": "images", "N": "patches",
    "P": "values", "Q": "queries", "R": "rows", "S": "seeds", "T": "tokens", "V": "width of (a vector|v)",
    "b": "side of a block in patches", "d": "width of a head", "h x w": "pixels", "p": "sides? of a patch",
    "u": "side of a mask cell in patches",
}  # fmt: skip
"""Letter -> how its meaning begins."""
LINK = "Letters (CONTRIBUTING.md): "
LETTER = r"(?:[A-Za-z]'?)"
ITEM = re.compile(rf"({LETTER}(?: (?:x|and) {LETTER})?)(?: = (?:\S+ [*+] )*\S+)? (.+)")
SHAPES = re.compile(r"\b(?:Float|Bool|Int|Integer|Int64|UInt8|Num|Real|Shaped)\[[\w.]+, *\"([^\"]*)\"\]")


def letters_said(doc: str) -> dict[str, str]:
    """Letter -> meaning, of the line of a module's docstring; what is said in words stands after it."""
    said = re.search(r"^Letters.*?(?=\n\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    if not said:
        return {}
    line = " ".join(said[0].split())
    assert line.startswith(LINK), f"expected {LINK!r}, got {line[:40]!r}"
    found: dict[str, str] = {}
    for item in re.split(r"\. |\.$", line.removeprefix(LINK))[0].split(", "):
        read = ITEM.fullmatch(item)
        assert read, f"expected a letter and its meaning, got {item!r}"
        names = [read[1]] if " x " in read[1] else read[1].split(" and ")
        found |= dict.fromkeys(names, read[2])
    return found


def check_meanings(said: dict[str, str]) -> None:
    """Whether every letter is one of the page and means what it does there."""
    for letter, meaning in said.items():
        assert letter in MEANINGS, f"{letter} ({meaning}) has no meaning in CONTRIBUTING.md: use a word"
        assert re.match(MEANINGS[letter], meaning.replace("widths", "width", 1)), (
            f"{letter} {meaning}, expected: {MEANINGS[letter]}"
        )


def used_in_shapes(source: str) -> set[str]:
    """The letters of a module's shapes, annotated or in a comment such as this: # (B, N, D)."""
    shapes = [*SHAPES.findall(source), *(shape.replace(",", " ") for shape in re.findall(r"# \(([^()]*)\)", source))]
    axes = {axis for shape in shapes for axis in re.findall(r"(?<![\w*])\d*([A-Za-z]'?)(?!\w)", shape)}
    pairs = {name for name in ("H x W", "h x w") if set(name.split(" x ")) <= axes}
    return axes - {letter for name in pairs for letter in name.split(" x ")} | pairs


def check_module(source: str) -> None:
    """Whether a module says its letters, and those of the page."""
    said = letters_said(ast.get_docstring(ast.parse(source)) or "")
    check_meanings(said)
    missing = used_in_shapes(source) - said.keys()
    assert not missing, f"not said under {LINK.strip()}: {', '.join(sorted(missing))}"


@over("module", MODULES)
def test_a_letter_means_the_same_everywhere(module):
    check_module(MODULES[module].read_text(encoding="utf-8"))


def test_the_page_says_them_all():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Letters")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([A-Za-z][^|]*?) \| ([^|]+?) \|$", page, re.MULTILINE))
    rows.pop("letter")
    assert sorted(rows) == sorted(MEANINGS)
    check_meanings(rows)


@over(
    ("module", "wrong"),
    [
        ('"""A.\n\nLetters: B images.\n"""', "expected 'Letters (CONTRIBUTING.md): '"),
        (f'"""A.\n\n{LINK}B blocks.\n"""', "B blocks, expected: images"),
        (f'"""A.\n\n{LINK}B images, n sides.\n"""', "n (sides) has no meaning"),
        (f'"""A.\n\n{LINK}B images, and so on.\n"""', "expected a letter and its meaning, got 'and so on'"),
        (f'"""A.\n\n{LINK}B images.\n"""\nx: Float[Tensor, "B N"]', "not said under Letters (CONTRIBUTING.md):: N"),
        ('"""A."""\nx: Float[Tensor, "B C H W"]', "B, C, H x W"),
        ('"""A."""\nx = y.mean()  # (B, Z)', "B, Z"),
    ],
)
def test_a_second_meaning_is_noticed(module, wrong):
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        check_module(module)
