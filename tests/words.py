"""Holds sentences against numbers, by rules of its own: what `viewer.findings` decided is decided here once more.

A ledger is what a caption carries along: kind, text, says, values, intervals.
"""

import ast
import math
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

NUMBER = r"-?\d[\d.]*(?:e[-+]?\d+)?|nan|inf"
FINDS = re.compile(
    r"\b(found|finds?|shows|higher|highest|lower|lowest|above|below|grows?|growing|falls?|rises?|beats?|outperforms?|"
    r"larger|largest|smaller|smallest|better|best|worse|nearer|nearest|widens?|wider|hardly|mostly|nearly|clearly|"
    r"(?<!at )most|neither|tenfold|comes? back|increases?|decreases?|improves?|lowers?|wins?|loses?|reaches|stronger|"
    r"weaker|more (?!than one)|less|small part|ends as|starts near|not at all|spread over|differ between)\b",
    re.IGNORECASE,
)
"""Words that state a result."""
WHOSE = re.compile(
    r"\b(papers?'?s?|claims?|v1|v2|HLV|authors|could|would|should|may|must|if|were|asks?|as far as|can|means that|"
    r"card|prediction of|questions?|does not show|not how good|with a live kernel)\b|\?",
    re.IGNORECASE,
)
"""Whose it is, or that it is no finding: the paper's, a question, what could be or what a word means."""
POINTS = re.compile(
    r"\b(?:named|printed|each|panel|lines?|figure|left out) (?:in the lines |in )?above\b|\babove (?:it|each)\b"
)
"""Where on the page something stands, which is no result."""


def contradictions(ledger: Mapping[str, Any]) -> list[str]:
    """Everything in a finding that its numbers contradict, in words; none where it is true."""
    check = {"apart": _apart, "order": _order, "course": _course, "along": _along, "meaning": _meaning}[ledger["kind"]]
    return [f"{ledger['text']}: {wrong}" for wrong in (*check(ledger), *_shown(ledger))]


def _apart(ledger: Mapping[str, Any]) -> Iterator[str]:
    (_, mine), *others = ledger["values"].items()
    for said, (name, other) in zip(ledger["says"], others, strict=True):
        low, high = ledger["intervals"].get(name, (float(mine) - float(other),) * 2)
        right = {"above": low > 0, "below": high < 0, "not told apart from": low <= 0 <= high or not _differ(low, mine)}
        if name not in ledger["intervals"] and said != "not told apart from":
            right[said] = right[said] and _differ(low, mine)
        if not right[said]:
            yield f"{said} {name}, but the difference is {low} to {high}"
        if not re.search(rf"\b{said} {re.escape(name)} \(", ledger["text"]):
            yield f"the text does not say {said} {name}"


def _differ(gap: float, size: float) -> bool:
    """Whether a gap can be seen in three digits."""
    return abs(gap) >= 5e-4 * abs(float(size))


def _order(ledger: Mapping[str, Any]) -> Iterator[str]:
    values = {name: float(value) for name, value in ledger["values"].items()}
    if ledger["says"] == ["everywhere"]:
        if _differ(max(values.values()) - min(values.values()), 20 * max(values.values())):
            yield "they differ"
        return
    high, low = ledger["says"]
    if values[high] != max(values.values()) or values[low] != min(values.values()):
        yield f"highest is {max(values, key=values.__getitem__)}, lowest {min(values, key=values.__getitem__)}"
    if f"highest in {high} (" not in ledger["text"] or f"lowest in {low} (" not in ledger["text"]:
        yield "the text names others"


def _course(ledger: Mapping[str, Any]) -> Iterator[str]:
    before, after = map(float, ledger["values"].values())
    (said,) = ledger["says"]
    right = {"rises": after > before, "falls": after < before, "stays": not _differ(after - before, 20 * after)}
    if not right[said]:
        yield f"{said}, but from {before} to {after}"
    if f" {said} " not in ledger["text"]:
        yield f"the text does not say {said}"


def _along(ledger: Mapping[str, Any]) -> Iterator[str]:
    line, (said,) = [float(v) for v in ledger["values"].values()], ledger["says"]
    ups, downs = (sum(sign * (b - a) > 0 for a, b in pairwise(line)) for sign in (1, -1))
    right = {
        "rises throughout": ups == len(line) - 1,
        "falls throughout": downs == len(line) - 1,
        "goes up and down": max(ups, downs) < len(line) - 1,
        "stays the same": len(line) < 2 or not _differ(max(line) - min(line), 20 * max(line)),
    }
    if not right[said]:
        yield f"{said}, but {line}"
    if f" {said} over " not in ledger["text"]:
        yield f"the text does not say {said}"


def _meaning(ledger: Mapping[str, Any]) -> Iterator[str]:
    (value, *limits), (said, *bands) = map(float, ledger["values"].values()), ledger["says"]
    expected = next((words for limit, words in zip(limits, bands) if value <= limit), bands[-1])
    if said != expected or not ledger["text"].endswith(f": {expected}."):
        yield f"at {value} it should say {expected!r}"


def _shown(ledger: Mapping[str, Any]) -> Iterator[str]:
    """Every number of the text that stands right after a name is that name's."""
    for name, value in ledger["values"].items():
        for text in re.findall(rf"(?<!\w){re.escape(name)} \(({NUMBER})\b", ledger["text"]):
            exact = float(value)
            if not (math.isnan(exact) or math.isclose(float(text), exact, rel_tol=6e-3, abs_tol=1e-9)):
                yield f"{name} is {exact}, and {text} in the text"


def clauses(text: str) -> list[str]:
    """The clauses of a text without its equations, code, tables and headings."""
    text = re.sub(r"\$\$.*?\$\$|`[^`]*`|^#.*$|^\|.*$", " ", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\b(Eq|Fig|vs|al)\. ", r"\1 ", text)
    return [part.strip() for part in re.split(r"(?<=[.!?:;])[*\s]+|\n\n", text) if part.strip()]


def ownerless(text: str) -> list[str]:
    """Clauses of a text that state a result and do not say whose."""
    return [c for c in clauses(text) if FINDS.search(POINTS.sub(" ", c)) and not WHOSE.search(c)]


def plain_words(source: str) -> str:
    """Of a code cell, what its captions say of every run and did not work out: texts that `caption` is given."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    captions = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "caption"]
    return " ".join(text for call in captions for argument in call.args for text in _texts(argument))


def _texts(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
    elif isinstance(node, ast.IfExp) and ast.unparse(node.test) != "nb.as_stored":  # silent elsewhere
        yield from (text for part in (node.body, node.orelse) for text in _texts(part))
