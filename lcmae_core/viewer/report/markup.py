"""Text of notebooks as safe HTML that loads nothing: markdown, equations as MathML, tables of outputs."""

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

from lcmae_core.viewer.report.pictures import figure_of
from lcmae_core.viewer.report.safe import safe_html, safe_mathml

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
__all__ = ["equation", "markdown", "plain", "safe_html", "terminal_text"]


def equation(latex: str, *, block: bool) -> str:
    """An equation as MathML, with its LaTeX for screen readers; as code where the converter gives up."""
    from latex2mathml.converter import convert

    try:
        mathml = convert(latex, display="block" if block else "inline")
    except Exception:
        return f"<code>{escape(latex)}</code>"
    alternative = f'<math alttext="{escape(" ".join(latex.split()))}"'
    mathml = safe_mathml(mathml).replace("<math", alternative, 1)
    return f'<div class="equation">{mathml}</div>' if block else mathml


@cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    def dollar(content: str, options: Mapping[str, Any]) -> str:
        return equation(content, block=bool(options["display_mode"]))

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, renderer=dollar, double_inline=True)
    parser.use(amsmath_plugin, renderer=lambda content: equation(content, block=True))
    parser.add_render_rule("image", _image)
    parser.add_render_rule("link_open", _link_open)
    parser.add_render_rule("link_close", _link_close)
    return parser


def _image(_: Any, tokens: Any, index: int, *__: Any) -> str:
    """Pictures that travel in the notebook are shown; others would have to be loaded, so their text stands instead."""
    token = tokens[index]
    source, text = str(token.attrs.get("src", "")), escape(token.content)
    if source.startswith("data:image/"):
        return f'<img src="{escape(source)}" alt="{text}"{_sides(source)}>'
    return f"<em>[{text or 'picture'}]</em>"


def _sides(source: str) -> str:
    """Width and height of an embedded picture, so that what stands below it does not move when it is drawn."""
    kind, _, encoded = source.removeprefix("data:").partition(";base64,")
    try:
        piece = figure_of(kind, encoded, "").pieces[0]
    except ValueError:
        return ""
    return f' width="{piece.width}" height="{piece.height}"' if piece.width else ""


def _link_open(_: Any, tokens: Any, index: int, *__: Any) -> str:
    target = str(tokens[index].attrs.get("href", ""))
    return f'<a href="{escape(target)}">' if target.startswith("#") else "<span>"


def _link_close(_: Any, tokens: Any, index: int, *__: Any) -> str:
    """A page elsewhere is named, not linked: the report has no reference out of itself."""
    opening = next(t for t in reversed(tokens[:index]) if t.type == "link_open" and t.level == tokens[index].level)
    target = str(opening.attrs.get("href", ""))
    if target.startswith("#"):
        return "</a>"
    told = tokens[index - 1].content == target or not re.match(r"https?:", target)
    return "</span>" if told else f'</span> <span class="url">({escape(target)})</span>'


def markdown(text: str, attachments: Mapping[str, Mapping[str, str]] | None = None, shift: int = 1) -> str:
    """Markdown with dollar equations as HTML; headings go down by `shift` levels, attachments are embedded."""
    for name, kinds in (attachments or {}).items():
        for kind, content in kinds.items():
            text = text.replace(f"attachment:{name}", f"data:{kind};base64,{content.strip()}")
    tokens = _markdown().parse(text)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + shift)}"
    rendered = _markdown().renderer.render(tokens, _markdown().options, {})
    return rendered.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")


def plain(text: str, limit: int = 300) -> str:
    """Markdown as a line of plain text, for alternative texts; cut after a word near `limit` characters."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = " ".join(re.sub(r"[*_`#$\\{}]+", "", text).split())
    return text if len(text) <= limit else text[:limit].rsplit(" ", 1)[0] + " ..."


def terminal_text(text: str) -> str:
    """Output as a terminal shows it: without colours, and of a line that rewrites itself only the last state."""
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines).strip("\n")
