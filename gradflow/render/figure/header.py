"""The header of a page: the verdict on its colour, the worst finding as a sentence, what to do next, what was profiled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle

from gradflow.numbers import number
from gradflow.records import Location, Report, Verdict
from gradflow.render import names, summary
from gradflow.render.figure.marks import subject, worst_note
from gradflow.render.figure.text import fill, glyphs, short, width_of
from gradflow.render.figure.theme import Theme
from gradflow.render.folding import pattern
from gradflow.rules import MOST_DECADES, RULES
from gradflow.rules.severity import counted

_BAR, _MARGIN, _BEFORE, _LEADING = 32.0, 9.0, 7.0, 5.5  # points: the coloured bar, its sides, what is below it, what a line takes beside its type

_CLOSED = "GF105"  # notes of which the sentence tells
_ONE, _SAME = 1.0, 1e-6  # decades
_HEADLINE = 2  # lines of the sentence that says what is wrong


@dataclass(frozen=True)
class Line:
    """A line under the bar; `size` in points."""

    text: str
    size: float
    weight: str
    color: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """A bar on the colour of `verdict`: `word` and `name` at its left, `facts` at its right; and the lines under it."""

    verdict: Verdict
    word: str
    name: str
    facts: str
    lines: Sequence[Line]

    @property
    def height(self) -> float:
        """What it takes, in points."""
        return _BAR + _BEFORE + sum(line.size + _LEADING for line in self.lines)


def of_report(report: Report, renderer: RendererBase, width: float, theme: Theme) -> Header:
    """The worst finding, what to do, what was profiled, what was measured; on a page `width` points wide."""
    paragraphs = [(_fitted(sentence(report), renderer, room(renderer, width)), 10.5, "bold", theme.ink, 3)]
    if where := " · ".join(part for part in (names.place(place_of(report)), _alike(report)) if part):
        paragraphs.append((f"Where: {where}", 9.5, "normal", theme.ink, 1))
    if summary.alarms(report):
        paragraphs.append((f"Next: {summary.next_step(report)}", 9.5, "normal", theme.ink, 2))
    if (note := worst_note(report)) is not None and note.rule != _CLOSED:
        paragraphs.append((f"Noted: {summary.told(note)}", 9.5, "normal", theme.ink, 2))
    facts = " · ".join(summary.target(report)[1:])
    measured = " · ".join(part for part in (summary.coverage(report), _counting(report)) if part)
    paragraphs += [(facts, 8.0, "normal", theme.grey, 2), (measured, 8.0, "normal", theme.grey, 2)]
    return Header(
        verdict=report.verdict, word=report.verdict.upper(), name=report.target.model_class, facts=" · ".join([*_counts(report), summary.verdict(report)]),
        lines=lines_of(paragraphs, renderer, room(renderer, width)),
    )  # fmt: skip


def _fitted(text: str, renderer: RendererBase, pixels: float) -> str:
    """As many of its sentences as stand on two lines, one at least: what is left out the panels show."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", text)
    font = FontProperties(size=10.5, weight="bold")
    while len(sentences) > 1 and len(fill(" ".join(sentences), renderer, font, pixels, 9)) > _HEADLINE:
        sentences.pop()
    return " ".join(sentences)


def _alike(report: Report) -> str:
    """`GF208 ×12: blocks.[0-11]`: how often and where the worst alarm is found; empty where it is found once."""
    alarms = summary.alarms(report)
    like = dict.fromkeys(f.where for f in alarms if (f.rule, f.severity) == (alarms[0].rule, alarms[0].severity))
    return f"{alarms[0].rule} ×{len(like)}: {summary.listed(pattern(like))}" if len(like) > 1 else ""


def _counts(report: Report) -> list[str]:
    """`2 findings`, `3 notes`: what alarms, and what does not."""
    alarms = len(summary.alarms(report))
    both = ((alarms, "finding"), (len(report.findings) - alarms, "note"))
    return [summary.plural(many, noun) for many, noun in both if many]


def _counting(report: Report) -> str:
    """Whose the severity is and what it counts; empty where nothing counts, or where another version counted otherwise."""
    first = max(report.findings, key=counted, default=None)
    if first is None or not report.severity or abs(counted(first) - report.severity) > _SAME:
        return ""
    size, most = counted(first), RULES[first.rule].most if first.rule in RULES else MOST_DECADES
    loop = subject(first.rule) == "highway" and any(h.name == first.where and h.turns > 1 for h in report.highways)
    if size >= most or size == _ONE:  # what has no size of its own counts one decade
        how = f"{number(size, 3)} {'power' if size == 1 else 'powers'} of ten at most"
    else:
        how = f"in powers of ten beyond where it begins to count{', for each call' if loop else ''}"
    return f"severity: {first.rule} counts most, {how}"


def place_of(report: Report) -> Location | None:
    """The user's line of the worst alarm, or of the layer or skip that it is about."""
    first = next(iter(summary.alarms(report)), None)
    if first is None or first.location is not None:
        return None if first is None else first.location
    owners = {p.name: layer.location for layer in report.layers for p in layer.parameters} | {layer.name: layer.location for layer in report.layers}
    return owners.get(first.where) or next((s.location for s in report.skips if first.where in (s.id, s.name)), None)


def room(renderer: RendererBase, width: float) -> float:
    """The pixels that a line may take on a page `width` points wide."""
    return (width - 2 * _MARGIN) * float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]


def lines_of(paragraphs: Sequence[tuple[str, float, str, str, int]], renderer: RendererBase, pixels: float) -> list[Line]:
    """Paragraphs (text, size, weight, colour, most lines) in lines at most `pixels` wide."""
    return [
        Line(line, size, weight, color)
        for text, size, weight, color, most in paragraphs
        for line in fill(text, renderer, FontProperties(size=size, weight=weight), pixels, most)
    ]


def draw(fig: Figure, head: Header, renderer: RendererBase, theme: Theme) -> None:
    """The header at the top edge of the figure."""
    width, height = (72 * float(v) for v in fig.get_size_inches())
    pixels = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    face, ink = theme.verdict[head.verdict]
    fig.add_artist(Rectangle((0, 1 - _BAR / height), 1, _BAR / height, transform=fig.transFigure, color=face, linewidth=0))
    y, facts = 1 - _BAR / 2 / height, glyphs(head.facts)
    fig.text(1 - _MARGIN / width, y, facts, fontsize=11, color=ink, va="center_baseline", ha="right", parse_math=False)
    fig.text(_MARGIN / width, y, head.word, fontsize=15, fontweight="bold", color=ink, va="center_baseline", parse_math=False)
    after = _MARGIN + width_of(head.word, renderer, FontProperties(size=15, weight="bold")) / pixels + 14
    left = (width - _MARGIN - after - 14) * pixels - width_of(facts, renderer, FontProperties(size=11))
    (name,) = fill(short(head.name, 60), renderer, FontProperties(size=13), left, 1)
    fig.text(after / width, y, name, fontsize=13, color=ink, va="center_baseline", parse_math=False)
    top = height - _BAR - _BEFORE
    for line in head.lines:
        at = (top - line.size / 2) / height
        fig.text(_MARGIN / width, at, line.text, fontsize=line.size, fontweight=line.weight, color=line.color, va="center", parse_math=False)
        top -= line.size + _LEADING


def sentence(report: Report) -> str:
    """The worst alarm, or what a healthy report can claim."""
    alarms = summary.alarms(report)
    if alarms:
        return summary.told(alarms[0])
    if not summary.is_complete(report):
        return "Nothing that was measured is wrong, but not everything was measured."
    zeros = sum(layer.gain == 0 and not layer.closed_by for layer in report.layers)
    if zeros or summary.closed(report):
        rest = f"; the gradient is exactly 0 at {summary.plural(zeros, 'layer')}" if zeros else ""
        return f"No alarm{rest}. {summary.closed(report)}".strip()
    return "The gradient reaches every layer." if report.layers else "There is no layer to measure."
