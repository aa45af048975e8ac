"""One self-contained HTML page of an output folder: results beside the paper's, then every executed notebook."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcmae_core.store.files import write_text
from lcmae_core.viewer.report.markup import equation, markdown, plain, safe_html, terminal_text

HERE = Path(__file__).resolve().parent
NOTEBOOKS = "[0-9][0-9]_*.ipynb"
BAR = re.compile(r"\d+%\||it/s\]|s/it\]|\d+/\d+ \[\d\d:\d\d")
"""What a progress bar leaves on stderr."""
PICTURES = ("image/png", "image/jpeg", "image/svg+xml")


@dataclass(frozen=True)
class Figure:
    """A picture with its caption and alternative text."""

    source: str
    alt: str
    caption: str = ""


@dataclass
class Block:
    """What the template shows: one of prose, code, text, error, table or figure."""

    kind: str
    content: Any
    label: str = ""


@dataclass
class Section:
    """A notebook: its title, state, duration and blocks."""

    number: str
    title: str
    failure: str = ""
    incomplete: bool = False
    seconds: float | None = None
    blocks: list[Block] = field(default_factory=list)


def build_report(out: Path, drawn: Sequence[tuple[str, Any]] = ()) -> Path:
    """Write <out>/report.html from the executed notebooks, results/*.json and ledger.json, and return its path.

    `drawn`: titles with pictures or tables (what has `_repr_png_` or `_repr_html_`), redrawn from the studies' records.

    The page loads nothing: styles and pictures are inside, equations are MathML.
    """
    import jinja2
    from markupsafe import Markup

    out = Path(out)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["safe_markup"] = Markup
    results = read_results(out)
    sections, lost = [_section(path, _read(out / "ledger.json")) for path in _executed(out)], _lost(out)
    sections = [*([_studies(drawn)] if drawn else []), *sections]
    failed = {s.number for s in sections if s.failure} | {name[:2] for name, _ in lost}
    text = environment.get_template("report.html").render(
        style=Markup((HERE / "report.css").read_text()),
        facts=_facts(results),
        rows=list(_rows(results, failed)),
        sections=sections,
        lost=lost,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return _write(text, out / "report.html")


def _studies(drawn: Sequence[tuple[str, Any]]) -> Section:
    section = Section("studies", "Studies: tables and figures from the records of their runs")
    for title, shown in drawn:
        section.blocks.append(Block("prose", markdown(f"### {title}")))
        if hasattr(shown, "_repr_png_"):
            data = base64.b64encode(shown._repr_png_()).decode()
            section.blocks.append(Block("figure", Figure(f"data:image/png;base64,{data}", title)))
        else:
            section.blocks.append(Block("table", safe_html(shown._repr_html_())))
    return section


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(text: str, target: Path) -> Path:
    write_text(target, text)
    return target


# ---- results


def read_results(out: Path) -> list[dict[str, Any]]:
    """What the notebooks recorded below a folder, in their order (store.results does the same, but loads torch)."""
    return [content for path in sorted((out / "results").glob("*.json")) if (content := _read(path))]


def number_text(value: Any) -> str:
    """A number in at most four significant digits; whole numbers in full; text as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value == round(value, 0) and abs(value) < 1e6 else f"{value:.4g}"


def value_text(entry: Mapping[str, Any]) -> str:
    """value ± sd unit (n = ...)."""
    text = number_text(entry.get("value"))
    if entry.get("sd") is not None:
        text += f" ± {number_text(float(entry['sd']))}"
    if entry.get("unit"):
        text += f" {entry['unit']}"
    return text + (f" (n = {entry['n']})" if entry.get("n") is not None else "")


def _facts(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Profile, device, commit ... of all results; several where they differ."""
    facts = []
    for name in ("profile", "data", "device", "seed", "commit", "date"):
        values = sorted({str(r[name]) for r in results if r.get(name) is not None})
        if name == "date" and len(values) > 1:
            values = [f"{values[0]} to {values[-1]}"]
        facts.append((name, ", ".join(values)))
    packages = {f"{k} {v}" for r in results for k, v in r.get("versions", {}).items()}
    return [(name, text) for name, text in [*facts, ("versions", ", ".join(sorted(packages)))] if text]


def _rows(results: Iterable[dict[str, Any]], failed: set[str]) -> Iterator[dict[str, str]]:
    for result in results:
        stale = "from an earlier execution; the last one failed. " if str(result.get("notebook")) in failed else ""
        for index, (name, entry) in enumerate(result.get("values", {}).items()):
            yield {
                "notebook": str(result.get("notebook", "")),
                "first": "first" if index == 0 else "",
                "name": name.replace("_", " "),
                "value": value_text(entry),
                "kind": "" if isinstance(entry.get("value"), str) else "value",
                "paper": str(entry.get("paper") or ""),
                "note": stale + str(entry.get("note") or ""),
            }


# ---- notebooks


def _executed(out: Path) -> list[Path]:
    """The executed notebooks in order; where the last execution failed, what there is of it."""
    chosen = {}
    for path in sorted(out.glob(NOTEBOOKS)):
        chosen[path.stem.removesuffix(".failed")] = path  # "03_x.failed.ipynb" sorts before "03_x.ipynb"
    failed = {p.stem.removesuffix(".failed"): p for p in out.glob(NOTEBOOKS) if p.stem.endswith(".failed")}
    return [failed.get(name, path) for name, path in chosen.items()]


def _lost(out: Path) -> list[tuple[str, str]]:
    """Notebooks that failed without leaving anything behind, such as those of a killed process."""
    left = {p.stem.removesuffix(".failed") for p in _executed(out)}
    entries = sorted(_read(out / "ledger.json").items())
    return [(name, str(e.get("error", ""))) for name, e in entries if e.get("status") == "failed" and name not in left]


def _section(path: Path, ledger: Mapping[str, Any]) -> Section:
    content = _read(path)
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
            section.blocks.append(Block("prose", markdown(source, cell.get("attachments"))))
        return 1
    if source.strip():
        tags = cell.get("metadata", {}).get("tags", [])
        count = len(source.splitlines())
        label = f"Code, {count} line{'s' * (count > 1)}"
        label = "Parameters of this run" if "injected-parameters" in tags else label
        section.blocks.append(Block("code", source, label))
    outputs = cell.get("outputs", [])
    captioned = following if following is not None and _is_caption(following) and _has_picture(outputs) else None
    caption = _text(captioned) if captioned else ""
    alt = plain(caption) or f"Figure of notebook {section.number}, cell {position + 1}"
    blocks = [block for output in outputs for block in _blocks(output, alt)]
    figures = [block for block in blocks if block.kind == "figure"]
    if figures and captioned:
        figures[-1].content = Figure(figures[-1].content.source, alt, markdown(caption))
    section.blocks.extend(_joined(blocks))
    return 2 if captioned else 1


def _is_caption(cell: Mapping[str, Any]) -> bool:
    return cell["cell_type"] == "markdown" and bool(_text(cell).strip()) and "#" not in _text(cell).lstrip()[:1]


def _has_picture(outputs: Iterable[Mapping[str, Any]]) -> bool:
    return any(kind in output.get("data", {}) for output in outputs for kind in PICTURES)


def _blocks(output: Mapping[str, Any], alt: str) -> Iterator[Block]:
    """An output's richest form that a page can show."""
    kind = output["output_type"]
    if kind == "stream":
        text = terminal_text(_text(output, "text"))
        is_bar = output["name"] == "stderr" and BAR.search(text)
        if text.strip() and not is_bar:
            yield Block("text", text, "stderr" if output["name"] == "stderr" else "")
    elif kind == "error":
        yield Block("error", terminal_text("\n".join(output.get("traceback", []))), f"{output['ename']}")
    else:
        yield from _rich(output["data"], alt)


def _rich(data: Mapping[str, Any], alt: str) -> Iterator[Block]:
    for kind in PICTURES:
        if kind in data:
            encoded = _text(data, kind).strip()
            if kind.endswith("xml"):
                encoded = base64.b64encode(encoded.encode()).decode()
            encoded = re.sub(r"\s", "", encoded)
            yield Block("figure", Figure(f"data:{kind};base64,{encoded}", alt))
            return
    if "text/markdown" in data:
        yield Block("prose", markdown(_text(data, "text/markdown"), shift=2))
    elif "text/latex" in data:
        yield Block("prose", equation(_text(data, "text/latex").strip().strip("$"), block=True))
    elif "text/html" in data and not _is_widget(data):
        yield Block("table", safe_html(_text(data, "text/html")))
    elif "text/plain" in data and not _is_widget(data):
        yield Block("text", terminal_text(_text(data, "text/plain")))


def _is_widget(data: Mapping[str, Any]) -> bool:
    return "application/vnd.jupyter.widget-view+json" in data


def _joined(blocks: Iterable[Block]) -> list[Block]:
    """Neighbouring pieces of the same stream as one."""
    joined: list[Block] = []
    for block in blocks:
        last = joined[-1] if joined else None
        if last and block.kind == last.kind == "text" and block.label == last.label:
            last.content += "\n" + block.content
        else:
            joined.append(block)
    return joined
