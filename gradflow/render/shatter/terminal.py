"""A ShatterReport as text for people: what the gradient is like, then one row per layer beside the two references. No name is read as markup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from gradflow.numbers import BARS, UNDEFINED, number, percent
from gradflow.render import folding
from gradflow.render.columns import Column, lay_out, printed, wrap
from gradflow.render.names import clean, link, place, shorten
from gradflow.render.shatter import words
from gradflow.render.summary import listed, plural
from gradflow.shatter_records import Curve, Likeness, ShatterReport

NARROWEST = 60
_LABEL = 10
_MOST_ROWS = 30
_COLORS: dict[Likeness, str] = {"white noise": "bold white on magenta", "between": "bold black on yellow", "Brownian motion": "bold white on green"}
_SHORT: dict[Likeness, str] = {"undefined": UNDEFINED}


@dataclass(frozen=True, kw_only=True)
class _View:
    width: int
    unfold: bool
    links: bool


def render(report: ShatterReport, *, width: int = 80, color: bool = False, unfold: bool = False, links: bool = False) -> str:
    """The report as text.

    Args:
        report: what to show.
        width: no line is longer, in terminal cells; at least 60.
        color: whether escape codes may be written; without it there are none, links neither.
        unfold: whether every layer gets a row of its own.
        links: whether locations are hyperlinks (OSC 8).
    """
    view = _View(width=max(width, NARROWEST), unfold=unfold, links=links and color)
    blocks = [_opening(report, view), _table(report, view), _closing(report, view)]
    return printed([line for i, block in enumerate(b for b in blocks if b) for line in ([Text("")] if i else []) + block], view.width, color)


def _opening(report: ShatterReport, view: _View) -> list[Text]:
    name = shorten(clean(report.target.model_class), view.width // 2)
    title = Text.assemble((f" {report.like.upper()} ", _COLORS.get(report.like, "bold reverse")), "  ", (name, "bold"), f"  {words.headline(report)}")
    nearest = words.nearest(report)
    cosine = None if nearest is None else nearest.mean_cosine
    said = f"mean cosine {_two([cosine])} of the gradients of {plural(report.samples, 'sample')} there" if cosine is not None else ""
    entries = [
        ("target", " · ".join(words.target(report))),
        ("line", words.line(report)),
        ("there", words.evidence(report)),
        ("samples", said),
        ("depth", words.whitened(report)),
        *(("note", clean(note)) for note in report.notes),
    ]
    lines = wrap(title, view.width)
    for label, body in entries:
        lines += wrap(Text(body), view.width, _LABEL, label) if body else []
    firsts = [None if c.acf is None else c.acf[1] for c in report.curves]
    if any(f is not None for f in firsts):
        lines.append(Text("ACF 1".ljust(_LABEL), style="bold") + Text(f"input {_bars(_binned(firsts, view.width - _LABEL - 14))} output", style="not bold"))
    return lines


def _table(report: ShatterReport, view: _View) -> list[Text]:
    curves = report.curves
    items = [folding.Item(name=c.name, key=(c.type, c.like), near=(None if c.acf is None else c.acf[1],)) for c in curves]
    groups = [folding.Group(name=c.name, members=(i,)) for i, c in enumerate(curves)] if view.unfold else folding.fold(items)
    shown = groups if view.unfold else _spread(groups)
    rows = [[curves[i] for i in g.members] for g in shown]
    references = report.references
    firsts = [row[0] for row in rows]

    def numbers(header: str, rank: int, of: Callable[[Curve], float | None], show: Callable[[list[float | None]], str]) -> Column:
        return Column(header=header, cells=[*(show([of(c) for c in row]) for row in rows), *(UNDEFINED for _ in references)], rank=rank)

    first = [
        *(_two([None if c.acf is None else c.acf[1] for c in row]) for row in rows),
        *(f"{_correlation(r.acf[1])} ± {r.deviation[1]:.2f}" for r in references),
    ]
    columns = [
        Column(header="gradient at", cells=[*(clean(g.name) for g in shown), *(r.name for r in references)], rank=0, right=False, floor=18),
        Column(header="type", cells=[*(clean(c.type) for c in firsts), *("reference" for _ in references)], rank=6, right=False, floor=9),
        Column(header="ACF 1", cells=first, rank=1),
        numbers("length", 5, lambda c: c.correlation_length, _one),
        numbers("of line", 7, lambda c: c.correlation_share, percent),
        numbers("cosine", 4, lambda c: c.mean_cosine, _two),
        numbers("varies", 8, lambda c: c.variation, percent),
        Column(header=f"ACF 0–{report.lags}", cells=[*(_bars(_mean(row)) for row in rows), *(_bars(r.acf) for r in references)], rank=3, right=False),
        Column(header="like", cells=[*(_SHORT.get(c.like, c.like) for c in firsts), *("" for _ in references)], rank=2, right=False),
        Column(
            header="location", cells=[*(place(c.location) for c in firsts), *("" for _ in references)], rank=9, right=False, floor=18, tail=True,
            links=[*(link(c.location) for c in firsts), *(None for _ in references)] if view.links else (),
        ),
    ]  # fmt: skip
    lines, dropped = lay_out(columns, view.width - 2)
    folded = f" in {plural(len(groups), 'row')} (--all unfolds them)" if len(groups) < len(curves) else ""
    notes = [f"{len(groups) - len(shown)} more rows between them: --all shows every row"] if len(shown) < len(groups) else []
    notes += [f"{UNDEFINED} {reason}: {listed(folding.pattern(names))}" for reason, names in words.reasons(curves).items()]
    notes += [f"not shown at this width: {', '.join(dropped)}"] if dropped else []
    out = [Text(f"Curves  {len(curves)}{folded}", style="bold underline"), *(Text("  ") + text for text in lines)]
    for note in notes:
        out += wrap(Text(note, style="dim"), view.width, 2)
    return out


def _closing(report: ShatterReport, view: _View) -> list[Text]:
    environment = report.environment
    return wrap(Text(f"gradflow {report.gradflow_version}, torch {environment.torch}, python {environment.python}", style="dim"), view.width)


def _spread(groups: Sequence[folding.Group]) -> list[folding.Group]:
    """At most so many rows, at equal distances, both ends among them."""
    most = min(len(groups), _MOST_ROWS)
    return [groups[round(i * (len(groups) - 1) / max(most - 1, 1))] for i in range(most)]


def _two(values: Sequence[float | None]) -> str:
    """A correlation or a range of them, with two decimals; what is not 1 does not print as 1."""
    return _range(values, _correlation)


def _correlation(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 0.995 else number(value, 3)
    return "0.00" if text == "-0.00" else text


def _one(values: Sequence[float | None]) -> str:
    return _range(values, lambda v: f"{v:.1f}")


def _range(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    defined = [v for v in values if v is not None]
    if not defined:
        return UNDEFINED
    low, high = show(min(defined)), show(max(defined))
    return low if low == high else f"{low} to {high}" if low.startswith("-") else f"{low}–{high}"


def _mean(row: Sequence[Curve]) -> list[float]:
    """The mean ACF of the folded curves that have one."""
    defined = [c.acf for c in row if c.acf is not None]
    return [sum(values) / len(values) for values in zip(*defined, strict=True)]


def _binned(values: Sequence[float | None], width: int) -> list[float | None]:
    """Means over runs of neighbours, at most `width` of them."""
    columns = min(width, len(values))
    bins = [[v for v in values[i * len(values) // columns : (i + 1) * len(values) // columns] if v is not None] for i in range(columns)]
    return [sum(b) / len(b) if b else None for b in bins]


def _bars(values: Sequence[float | None]) -> str:
    """Values from 0 (or below) to 1 as bars; `?` where one is not defined."""
    return "".join("?" if v is None else BARS[max(0, min(7, int(8 * v)))] for v in values) or UNDEFINED
