"""Executed notebooks as sections of the report: prose, folded code, text, tables, and figures with their captions."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcmae_core.store.outputs import read_ledger, read_object
from lcmae_core.viewer.report.markup import equation, markdown, plain, safe_html, terminal_text
from lcmae_core.viewer.report.pictures import figure_of

NOTEBOOKS = "[0-9][0-9]_*.ipynb"
BAR = re.compile(r"\d+%\||it/s\]|s/it\]|\d+/\d+ \[\d\d:\d\d")
"""What a progress bar leaves on stderr."""
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


@dataclass
class ReportBlock:
    """What the template shows: one of prose, code, text, error, table or figure."""

    kind: str
    content: Any
    label: str = ""
    cell: str = ""


@dataclass
class Section:
    """A notebook: its title, state, duration and blocks."""

    number: str
    title: str
    failure: str = ""
    incomplete: bool = False
    seconds: float | None = None
    blocks: list[ReportBlock] = field(default_factory=list)


def executed(out: Path) -> list[Path]:
    """The executed notebooks in order; where the last execution failed, what there is of it."""
    chosen = {}
    for path in sorted(out.glob(NOTEBOOKS)):
        chosen[path.stem.removesuffix(".failed")] = path  # "03_x.failed.ipynb" sorts before "03_x.ipynb"
    failed = {p.stem.removesuffix(".failed"): p for p in out.glob(NOTEBOOKS) if p.stem.endswith(".failed")}
    return [failed.get(name, path) for name, path in chosen.items()]


def lost_notebooks(out: Path) -> list[tuple[str, str]]:
    """Notebooks that failed without leaving anything behind, such as those of a killed process."""
    left = {p.stem.removesuffix(".failed") for p in executed(out)}
    entries = sorted(read_ledger(out).items())
    return [(name, str(e.get("error", ""))) for name, e in entries if e.get("status") == "failed" and name not in left]


def section_of(path: Path, ledger: Mapping[str, Any]) -> Section:
    """An executed notebook and its entry in the ledger as a section."""
    content = read_object(path)
    name = path.stem.removesuffix(".failed")
    entry = ledger.get(name, {})
    section = Section(name[:2], name, seconds=entry.get("seconds"), incomplete=entry.get("status") == "incomplete")
    if path.stem.endswith(".failed") or entry.get("status") == "failed":
        cell = f"cell {entry['cell']}: " if entry.get("cell") else ""
        section.failure = f"{cell}{entry.get('error') or 'a cell raised an error'}"
    cells = list(content.get("cells", []))
    _take_title(section, cells)
    position = 0
    while position < len(cells):
        following = cells[position + 1] if position + 1 < len(cells) else None
        position += _add_cell(section, cells[position], following, position)
    return section


def _take_title(section: Section, cells: list[dict[str, Any]]) -> None:
    """Move the `# NN · Name` of the first cell into the section's heading."""
    if cells and cells[0]["cell_type"] == "markdown":
        first, _, rest = _text(cells[0]).lstrip().partition("\n")
        if first.startswith("# "):
            section.title = plain(first)
            cells[0] = {**cells[0], "source": rest}


def _text(cell: Mapping[str, Any], key: str = "source") -> str:
    text = cell.get(key, "")
    return text if isinstance(text, str) else "".join(text)


def _add_cell(section: Section, cell: dict[str, Any], following: dict[str, Any] | None, position: int) -> int:
    """Add a cell's blocks and return how many cells that used: a caption is used up by its figure."""
    source = _text(cell)
    if cell["cell_type"] != "code":
        if cell["cell_type"] == "markdown" and source.strip():
            section.blocks.append(ReportBlock("prose", markdown(source, cell.get("attachments"))))
        return 1
    if source.strip():
        tags = cell.get("metadata", {}).get("tags", [])
        count = len(source.splitlines())
        label = f"Code, {count} line{'s' * (count > 1)}"
        label = "Parameters of this run" if "injected-parameters" in tags else label
        section.blocks.append(ReportBlock("code", source, label))
    outputs = cell.get("outputs", [])
    captioned = following if following is not None and _is_caption(following) and _has_picture(outputs) else None
    caption = _caption(captioned) if captioned else ""
    alt = plain(caption) or f"Figure of notebook {section.number}, cell {position + 1}"
    blocks = [block for output in outputs for block in _blocks(output, alt)]
    figures = [block for block in blocks if block.kind == "figure"]
    if figures and captioned:
        figures[-1].content = figures[-1].content._replace(caption=markdown(caption))
    for block in figures:
        block.cell = str(cell.get("id", ""))
    section.blocks.extend(_joined(blocks))
    return 2 if captioned else 1


def _is_caption(cell: Mapping[str, Any]) -> bool:
    """Prose, or a cell that shows nothing but a caption that it worked out."""
    words = _caption(cell).lstrip()
    return bool(words) and words[0] != "#"


def _caption(cell: Mapping[str, Any]) -> str:
    if cell["cell_type"] == "markdown":
        return _text(cell)
    outputs = cell.get("outputs", [])
    worked_out = len(outputs) == 1 and "findings" in outputs[0].get("metadata", {}).get("text/markdown", {})
    return _text(outputs[0]["data"], "text/markdown") if worked_out else ""


def _has_picture(outputs: Iterable[Mapping[str, Any]]) -> bool:
    return any(kind in output.get("data", {}) for output in outputs for kind in PICTURES)


def _blocks(output: Mapping[str, Any], alt: str) -> Iterator[ReportBlock]:
    """An output's richest form that a page can show."""
    kind = output["output_type"]
    if kind == "stream":
        text = terminal_text(_text(output, "text"))
        is_bar = output["name"] == "stderr" and BAR.search(text)
        if text.strip() and not is_bar:
            yield ReportBlock("text", text, "stderr" if output["name"] == "stderr" else "")
    elif kind == "error":
        yield ReportBlock("error", terminal_text("\n".join(output.get("traceback", []))), f"{output['ename']}")
    else:
        yield from _rich(output["data"], alt)


def _rich(data: Mapping[str, Any], alt: str) -> Iterator[ReportBlock]:
    for kind in PICTURES:
        if kind in data:
            yield ReportBlock("figure", figure_of(kind, _text(data, kind).strip(), alt))
            return
    if "text/markdown" in data:
        yield ReportBlock("prose", markdown(_text(data, "text/markdown"), shift=2))
    elif "text/latex" in data:
        yield ReportBlock("prose", equation(_text(data, "text/latex").strip().strip("$"), block=True))
    elif "text/html" in data and not _is_widget(data):
        yield ReportBlock("table", safe_html(_text(data, "text/html")))
    elif "text/plain" in data and not _is_widget(data):
        yield ReportBlock("text", terminal_text(_text(data, "text/plain")))


def _is_widget(data: Mapping[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data


def _joined(blocks: Iterable[ReportBlock]) -> list[ReportBlock]:
    """Neighbouring pieces of the same stream as one."""
    joined: list[ReportBlock] = []
    for block in blocks:
        last = joined[-1] if joined else None
        if last and block.kind == last.kind == "text" and block.label == last.label:
            last.content += "\n" + block.content
        else:
            joined.append(block)
    return joined
