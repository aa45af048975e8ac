"""HTML and MathML that others made, reduced to what cannot do anything: no script, link, picture or style."""

from html import escape, unescape
from html.parser import HTMLParser

ALLOWED = frozenset(("table", "thead", "tbody", "tfoot", "tr", "th", "td", "caption", "ul", "ol", "li")) | frozenset(
    ("p", "b", "i", "em", "strong", "code", "pre", "span", "div", "br", "hr", "sub", "sup", "small")
)
KEPT_ATTRIBUTES = frozenset(("colspan", "rowspan", "scope"))
WITHOUT_CONTENT = frozenset(("script", "style", "template", "svg", "iframe", "object", "title"))
MATH = frozenset((
    "math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot", "mstyle", "merror",
    "mpadded", "mphantom", "mfenced", "menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover",
    "mmultiscripts", "mprescripts", "none", "mtable", "mtr", "mlabeledtr", "mtd",
))  # fmt: skip
MATH_ATTRIBUTES = frozenset((
    "display", "mathvariant", "mathcolor", "mathsize", "stretchy", "fence", "separator", "form", "accent",
    "accentunder", "largeop", "linethickness", "columnalign", "rowalign", "columnspacing", "rowspacing",
    "columnlines", "rowlines", "lspace", "rspace", "width", "height", "depth", "voffset", "minsize", "maxsize",
    "movablelimits", "displaystyle", "scriptlevel", "symmetric", "columnspan", "rowspan", "frame", "notation",
    "open", "close", "separators",
))  # fmt: skip


class _Sanitiser(HTMLParser):
    """Keeps tables and plain formatting; drops scripts, styles, links, pictures and every other attribute."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._muted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._muted += tag in WITHOUT_CONTENT
        if tag in ALLOWED and not self._muted:
            kept = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs if name in KEPT_ATTRIBUTES)
            self.parts.append(f"<{tag}{kept}>")

    def handle_endtag(self, tag: str) -> None:
        if tag in WITHOUT_CONTENT:
            self._muted = max(0, self._muted - 1)
        elif tag in ALLOWED and tag not in ("br", "hr") and not self._muted:
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if not self._muted:
            self.parts.append(escape(data))


def safe_html(text: str) -> str:
    """HTML of an output, reduced to tables and plain formatting."""
    sanitiser = _Sanitiser()
    sanitiser.feed(text)
    sanitiser.close()
    return f'<div class="wide">{"".join(sanitiser.parts)}</div>'


class _MathSanitiser(HTMLParser):
    """Keeps MathML's own elements and attributes, balanced; everything else stands there as text, to be read."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in MATH or (tag == "math" and self.open):
            self.parts.append(escape(unescape(self.get_starttag_text() or "")))
            return
        kept = "".join(f' {name}="{escape(value or "")}"' for name, value in attrs if name in MATH_ATTRIBUTES)
        self.parts.append(f"<{tag}{kept}>")
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        depth = len(self.open)
        self.handle_starttag(tag, attrs)
        if len(self.open) > depth:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
            self.parts.append(f"</{tag}>")
        elif tag not in MATH:
            self.parts.append(escape(f"</{tag}>"))

    def handle_data(self, data: str) -> None:
        self.parts.append(escape(data))


def safe_mathml(text: str) -> str:
    """MathML of a converter that puts the text of an equation into it as it is."""
    sanitiser = _MathSanitiser()
    sanitiser.feed(text)
    sanitiser.close()
    return "".join(sanitiser.parts) + "".join(f"</{tag}>" for tag in reversed(sanitiser.open))
