"""The README's stills: small files of what is said there, and a terminal's text as it was left on the screen."""

from pathlib import Path

from PIL import Image

from benchmarks.stills import MOST_KB, PICTURES, WIDE, ended


def test_the_stills_are_there_and_small():
    shown = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    for name in ("run.png", "report.png", "browser.png"):
        assert f"](outputs/reference/{name})" in shown
        assert (PICTURES / name).stat().st_size <= MOST_KB * 1000
        with Image.open(PICTURES / name) as image:
            assert 600 < image.width <= WIDE
            assert len(image.convert("RGB").resize((60, 60)).getcolors(3600) or ()) > 30, "not an empty page"


def test_a_terminal_is_read_as_it_was_left():
    said = (
        "Script started on a day\r\n\x1b[2K00 \x1b[91m━━━━\x1b[0m 0/2 about 2 min left\r\x1b[2K[1/2] 00_a: ok, 20 s\r\n"
        "\x1b[2K01 ━━━━ 1/2 about 9 s left\r\r\x1b[2K[2/2] 01_b: ok, 9 s\r\n\r\n2 of 2 ok in <1 min; open r.html\r\n"
    )
    lines = ["[1/2] 00_a: ok, 20 s", "[2/2] 01_b: ok, 9 s", "2 of 2 ok in &lt;1 min; open r.html"]
    assert ended(said).splitlines() == ["<b>$ make run</b>", "...", *lines]
