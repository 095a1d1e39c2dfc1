"""Text on a figure: glyphs that the font has, and lines that fit. Knows pixels, nothing of reports.

Every text is drawn with `parse_math=False`, so a dollar sign in a name is a dollar sign.
"""

from __future__ import annotations

import re
from functools import cache

from matplotlib.backend_bases import RendererBase
from matplotlib.font_manager import FontProperties, findfont, get_font

from gradflow.blocks import called
from gradflow.render.names import ELLIPSIS, clean, shorten

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_TIED = "\u00a0"  # a space at which no line ends


@cache
def _has_glyph(character: str, font: str) -> bool:
    return bool(get_font(font).get_char_index(ord(character)))


def glyphs(text: str) -> str:
    """`text` on one line; what the figure's font cannot draw stands as its number, `\\u6f22`, so that the name can still be found."""
    font = str(findfont(FontProperties()))
    return "".join(c if _has_glyph(c, font) else c.encode("unicode_escape").decode() for c in clean(text))


def short(name: str, width: int) -> str:
    """A name for a label, shortened in the middle to `width` characters."""
    return shorten(called(glyphs(name)), width)


def power(exponent: float) -> str:
    """10 to a whole power, in Unicode superscripts: `10⁻¹⁷`; 1 for exponent 0."""
    whole = round(exponent)
    return {0: "1", 1: "10", -1: "0.1"}.get(whole, "10" + str(whole).translate(_SUPERSCRIPTS))


def fill(text: str, renderer: RendererBase, font: FontProperties, width: float, most: int) -> list[str]:
    """`text` broken into at most `most` lines of at most `width` pixels; the last ends with an ellipsis where some is left out."""
    lines, line = [], ""
    for word in re.sub(r"\bλ = (?=\S)", f"λ{_TIED}={_TIED}", glyphs(text)).split(" "):
        longer = f"{line} {word}".strip()
        if line and width_of(longer, renderer, font) > width:
            lines.append(line)
            longer = word
        line = longer
    lines.append(line)
    if len(lines) > most:
        lines[most - 1 :] = [_ended(lines[most - 1], renderer, font, width)]
    return [_cut(line.replace(_TIED, " "), renderer, font, width) for line in lines]


def _ended(line: str, renderer: RendererBase, font: FontProperties, width: float) -> str:
    """A line after which something is left out: as many of its words as have room for an ellipsis behind them."""
    words = line.split(" ")
    while len(words) > 1 and width_of(" ".join([*words, ELLIPSIS]), renderer, font) > width:
        words.pop()
    return " ".join([*words, ELLIPSIS])


def width_of(text: str, renderer: RendererBase, font: FontProperties) -> float:
    """The width of a line in pixels."""
    return float(renderer.get_text_width_height_descent(text, font, False)[0])


def _cut(line: str, renderer: RendererBase, font: FontProperties, width: float) -> str:
    while len(line) > 1 and width_of(line, renderer, font) > width:
        line = shorten(line, max(1, int(len(line) * 0.95)))
    return line
