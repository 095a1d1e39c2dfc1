"""The tables of a report: highways, skips, layers. Folds repeated blocks and gives the reason of every dash; how a table looks is each format's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from gradflow.blocks import called
from gradflow.numbers import UNDEFINED, bars, decades, defined, percent, span
from gradflow.records import Highway, Layer, Location, Report, Segment, Skip, Streams
from gradflow.render import folding, measures
from gradflow.render.columns import Column, filled
from gradflow.render.names import clean, link, place
from gradflow.render.summary import alarms, closed, plural

MOST_ROWS = 30
_MOST_LOOPS = 4
_NUMBER = re.compile(r"\d+")
_STEADY = 1e-3  # a λ that changes less over its calls has no trend
Member = TypeVar("Member", Layer, Skip, Highway, Segment, Streams)
Gained = TypeVar("Gained", Layer, Skip)
Ranges = Callable[[Sequence[float | None]], str]


@dataclass(frozen=True, kw_only=True)
class View:
    """How a report is shown.

    Attributes:
        width: in terminal cells.
        unfold: whether every row, and every finding, stands alone.
        links: whether locations are links; `url` says where one leads, None where it leads nowhere.
        most_rows: of one table, where rows are folded.
    """

    width: int
    unfold: bool
    links: bool
    url: Callable[[Location | None], str | None] = link
    most_rows: int = MOST_ROWS


def _none_dropped(dropped: Sequence[str]) -> list[str]:
    return []


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table before it is laid out.

    Attributes:
        title: what its rows are.
        count: how many of them there are, or in words that there are none.
        folded: whether some of them share a row.
        columns: none where there is nothing to show but the notes.
        notes: what stands below it.
        dashes: the reasons of the dashes, given the headers of columns that are not shown.
    """

    title: str
    count: str
    folded: bool = False
    columns: Sequence[Column] = ()
    notes: Sequence[str] = ()
    dashes: Callable[[Sequence[str]], list[str]] = _none_dropped


@dataclass(frozen=True, kw_only=True)
class _Rows(Generic[Member]):
    """Folded rows of one table, and the fields that it has shown."""

    names: Sequence[str]
    rows: Sequence[Sequence[Member]]
    shown: dict[str, str] = field(default_factory=dict)

    def dashes(self, dropped: Sequence[str]) -> list[str]:
        """The reasons of every dash in the columns that were not dropped."""
        shown = {header: name for header, name in self.shown.items() if header not in dropped}
        return _reasons([m.undefined for row in self.rows for m in row], shown)

    def numbers(self, header: str, name: str, rank: int, show: Ranges = span) -> Column:
        self.shown[header] = name
        return Column(header=header, cells=[show([getattr(m, name) for m in row]) for row in self.rows], rank=rank)

    def ranges(self, header: str, names: tuple[str, str], rank: int) -> Column:
        """From the smallest of one field to the largest of another, to a millionth: a matrix is not known better in float32."""
        self.shown[header] = names[1]
        cells = [span([round(v, 6) for v in defined([getattr(m, n) for m in row for n in names])], 3) for row in self.rows]
        return Column(header=header, cells=cells, rank=rank)

    def words(self, header: str, rank: int, words: Callable[[Member], str], floor: int = 8) -> Column:
        cells = [", ".join(dict.fromkeys(clean(words(m)) for m in row)) for row in self.rows]
        return Column(header=header, cells=cells, rank=rank, right=False, floor=floor)

    def title(self, header: str, colors: Sequence[str]) -> Column:
        names = [called(clean(n)) for n in self.names]
        return Column(header=header, cells=names, rank=0, right=False, floor=36, styles=colors)

    def locations(self, rank: int, view: View, of: Callable[[Member], Location | None]) -> Column:
        firsts = [of(row[0]) for row in self.rows]
        cells = [place(first) + (" …" if len({of(m) for m in row}) > 1 else "") for first, row in zip(firsts, self.rows, strict=True)]
        links = [view.url(x) for x in firsts] if view.links else ()
        return Column(header="location", cells=cells, rank=rank, right=False, floor=18, tail=True, links=links)


def every(report: Report, view: View) -> list[Table]:
    """The tables that the report has rows for, in their order; those of skips and layers say so where there are none. No column is empty."""
    found = (make(report, view) for make in (highways, segments, streams, skips, layers))
    return [replace(table, columns=filled(table.columns)) for table in found if table is not None]


def highways(report: Report, view: View) -> Table | None:
    """One row per highway: how many skips, what it carries, and what ∏λ would have said."""
    if not report.highways:
        return None
    table = _Rows(names=[h.name for h in report.highways], rows=[(h,) for h in report.highways])
    alarm = _alarms(report)
    columns = [
        table.title("highway", [alarm([h.name]) for h in report.highways]),
        Column(header="skips", cells=[str(len(h.skips)) for h in report.highways], rank=2),
        table.numbers("gain", "gain", 1, _brief),
        table.numbers("∏λ", "product_of_lambdas", 3),
        table.numbers("total gain", "total_gain", 4),
        *([table.numbers("if λ = 1", "identity_gain", 5)] if any(_differs(h.identity_gain, h.gain) for h in report.highways) else []),
        table.words("trunk", 5, lambda h: ", ".join(h.trunk_ops) or "nothing"),
    ]
    note = "gain: measured with every branch cut; ∏λ is not it where a skip is no scalar or the trunk has more than sums"
    notes = [note, *measures.spectra(report, view.width)]
    return Table(title="Highways", count=str(len(report.highways)), columns=columns, notes=notes, dashes=table.dashes)


def segments(report: Report, view: View) -> Table | None:
    """One row per segment of each highway that has several, nearest the input first: its stages, and the transitions between them."""
    several = [h for h in report.highways if len(h.segments) > 1]
    rows = [(s,) for h in several for s in (h.segments if view.unfold else h.segments[: view.most_rows])]
    if not rows:
        return None
    table = _Rows(names=[s.name for (s,) in rows], rows=rows)
    columns = [
        table.title("segment", ["" for _ in rows]),
        table.words("form", 1, lambda s: s.form),
        Column(header="skips", cells=[str(len(s.skips)) for (s,) in rows], rank=3),
        table.numbers("gain", "gain", 2, _brief),
        table.words("through", 4, lambda s: ", ".join(s.ops) or "nothing"),
    ]
    hidden = sum(len(h.segments) for h in several) - len(rows)
    notes = [f"{hidden} more segments: --all shows every row"] if hidden else []
    return Table(title="Segments", count=f"{len(rows) + hidden} of {plural(len(several), 'highway')}", columns=columns, notes=notes, dashes=table.dashes)


def skips(report: Report, view: View) -> Table:
    """One row per skip, or per run of like skips, nearest the input first."""
    if not report.skips:
        rest = "opaque parts may hold some, see coverage." if report.opaque else "the gradient has no way around any layer."
        return Table(title="Skips", count="none", notes=[f"No skip connection was found: {rest}"])
    items = [folding.Item(name=s.id, key=(s.kind, s.calls, s.form), near=(s.lam, s.gain), drift=(s.branch_gain, s.highway_gain)) for s in report.skips]
    table, hidden = _folded(report, report.skips, items, lambda s: s.id, view)
    alarm = _alarms(report)
    columns = [
        table.title("skip", [alarm(n for m in row for n in (m.id, m.name)) for row in table.rows]),
        table.words("kind", 1, lambda s: s.kind),
        table.numbers("λ", "lam", 2),
        *_interval(table),
        *([table.numbers("λ full", "lam_full", 7)] if any(s.lam_full is not None and s.lam_full != s.lam for s in report.skips) else []),
        *_probed(table),
        table.numbers("misfit", "misfit", 7, _brief),
        table.numbers("gain", "gain", 3, _brief),
        table.numbers("branch", "branch_gain", 5, _brief),
        table.numbers("cos", "cos_skip_branch", 6, _brief),
        table.numbers("highway", "highway_gain", 4, _brief),
        *([table.numbers("calls", "calls", 7)] if any(s.calls > 1 for s in report.skips) else []),
        table.locations(8, view, lambda s: s.location),
    ]
    notes = [*hidden, *_trends(report.skips, view), *measures.skips(report.skips)]
    return Table(
        title="Skips", count=_count(report.skips, table.rows), folded=len(table.rows) < len(report.skips), columns=columns, notes=notes, dashes=table.dashes
    )


def streams(report: Report, view: View) -> Table | None:
    """One row per mixing of parallel streams, and one per highway for what they make together: the Amax gains, smallest to largest."""
    found = measures.streams(report)
    if not found:
        return None
    items = [folding.Item(name=name, key=(s.rank, s.measured_by), near=(s.backward_sum_least, s.backward_sum, s.forward_abs)) for name, s in found]
    groups = [folding.Group(name=name, members=(i,)) for i, (name, _) in enumerate(found)] if view.unfold else folding.fold(items)
    shown = groups if view.unfold else groups[: view.most_rows]
    table = _Rows(names=[g.name for g in shown], rows=[tuple(found[i][1] for i in g.members) for g in shown])
    columns = [
        table.title("mixing", ["" for _ in shown]),
        table.numbers("n", "count", 6),
        table.numbers("rank", "rank", 3),
        table.ranges("back |ΣΛ|", ("backward_sum_least", "backward_sum"), 1),
        table.ranges("back Σ|Λ|", ("backward_abs_least", "backward_abs"), 2),
        table.ranges("fwd |ΣΛ|", ("forward_sum_least", "forward_sum"), 4),
        table.ranges("fwd Σ|Λ|", ("forward_abs_least", "forward_abs"), 5),
        table.numbers("misfit", "misfit", 7, _brief),
        table.words("by", 8, lambda s: s.measured_by),
    ]
    more = [f"{len(groups) - len(shown)} more rows: --all shows them"] if len(groups) > len(shown) else []
    note = "back: column sums of the mixing matrix Λ, what the gradient is multiplied by; fwd: row sums; smallest to largest over the streams"
    return Table(
        title="Streams", count=_count(found, table.rows), folded=len(table.rows) < len(found), columns=columns, notes=[note, *more], dashes=table.dashes
    )


def _trends(found: Sequence[Skip], view: View) -> list[str]:
    """For each loop whose λ changes from call to call a line of bars, first call first; the loops that change most, unless all are asked for."""
    loops = [(spread, s) for s in found if (spread := max(defined(s.trend), default=0.0) - min(defined(s.trend), default=0.0)) > _STEADY]
    shown = loops if view.unfold else sorted(loops, key=lambda pair: -pair[0])[:_MOST_LOOPS]
    heads = [f"{clean(s.id)}: λ {span(s.trend, 3)} from call 1 to {s.calls} " for _, s in shown]
    return [head + bars(s.trend, min(view.width // 2, max(10, view.width - 4 - len(head)))) for head, (_, s) in zip(heads, shown, strict=True)]


def layers(report: Report, view: View) -> Table:
    """One row per layer, or per run of like layers, nearest the input first."""
    if not report.layers:
        return Table(title="Layers", count="none")
    keys = [(x.type, x.calls, bool(x.closed_by), bool(x.nonfinite)) for x in report.layers]
    items = [folding.Item(name=x.name, key=key, drift=(x.gain,), near=(x.zero_fraction,)) for x, key in zip(report.layers, keys, strict=True)]
    table, hidden = _folded(report, report.layers, items, lambda x: x.name, view)
    alarm = _alarms(report)
    columns = [
        table.title("layer", [alarm(n for m in row for n in (m.name, *(p.name for p in m.parameters))) for row in table.rows]),
        table.words("type", 2, lambda x: x.type, floor=12),
        table.numbers("gain", "gain", 1, _brief),
        table.numbers("grad norm", "grad_norm", 4, _brief),
        table.numbers("zero", "zero_fraction", 3, percent),
        table.numbers("non-finite", "nonfinite", 1 if any(x.nonfinite for x in report.layers) else 9),
        table.numbers("fp16 underflow", "fp16_underflow", 7 if any(x.fp16_underflow for x in report.layers) else 9, percent),
        *([table.numbers("dead units", "dead_units", 5, percent)] if any(x.dead_units for x in report.layers) else []),
        *([table.numbers("sd decades", "fluctuation", 6, _brief)] if report.run.batches > 1 and any(x.fluctuation is not None for x in report.layers) else []),
        *([table.numbers("calls", "calls", 5)] if any(x.calls > 1 for x in report.layers) else []),
        table.locations(8, view, lambda x: x.location),
    ]
    notes = [*hidden, *filter(None, [closed(report)])]
    return Table(
        title="Layers", count=_count(report.layers, table.rows), folded=len(table.rows) < len(report.layers), columns=columns, notes=notes, dashes=table.dashes
    )


def _folded(
    report: Report, members: Sequence[Gained], items: Sequence[folding.Item], name: Callable[[Gained], str], view: View
) -> tuple[_Rows[Gained], list[str]]:
    """The rows to show, and a line on those that are not: of too many rows those stay that have a finding or a gain far from 1."""
    groups = [folding.Group(name=name(m), members=(i,)) for i, m in enumerate(members)] if view.unfold else folding.fold(items)
    hidden: list[str] = []
    if not view.unfold and len(groups) > view.most_rows:
        alarmed = {f.where for f in alarms(report)}
        order = sorted(groups, key=lambda g: (not any(name(members[i]) in alarmed for i in g.members), -_distance(members[i].gain for i in g.members)))
        kept = {g.members for g in order[: view.most_rows]}
        hidden = [f"{plural(len(groups) - view.most_rows, 'more row')}, all nearer to gain 1 or with fewer findings: --all shows every row"]
        groups = [g for g in groups if g.members in kept]
    return _Rows(names=[g.name for g in groups], rows=[tuple(members[i] for i in g.members) for g in groups]), hidden


def _distance(gains: Iterable[float | None]) -> float:
    return max((400.0 if g == 0 else abs(decades(g) or 0.0) for g in gains), default=0.0)


def _alarms(report: Report) -> Callable[[Iterable[str]], str]:
    """From names to a style: that of the worst finding on any of them."""
    errors = {f.where for f in report.findings if f.severity == "error"}
    warnings = {f.where for f in report.findings if f.severity == "warning"}

    def style(names: Iterable[str]) -> str:
        known = set(names)
        return "red" if known & errors else "yellow" if known & warnings else ""

    return style


def _count(members: Sequence[object], rows: Sequence[object]) -> str:
    return str(len(members)) + (f" in {plural(len(rows), 'row')}" if len(rows) < len(members) else "")


def _reasons(undefined: Sequence[Mapping[str, str]], shown: Mapping[str, str]) -> list[str]:
    """One line per reason of a dash that is shown: `– no gradient reached the join: λ (3), gain (1)`; reasons that differ in numbers alone are one."""
    times = Counter((clean(of[name]), header) for header, name in shown.items() for of in undefined if name in of)
    alike: dict[str, tuple[dict[str, None], Counter[str]]] = {}
    for (reason, header), n in times.items():
        reasons, headers = alike.setdefault(_NUMBER.sub("", reason), ({}, Counter()))
        reasons[reason] = None
        headers[header] += n
    return [
        f"{UNDEFINED} {next(iter(reasons))}{', and the like' if len(reasons) > 1 else ''}: {', '.join(f'{header} ({n})' for header, n in headers.items())}"
        for reasons, headers in alike.values()
    ]


def _brief(values: Sequence[float | None]) -> str:
    """A range with 3 digits, one number with 4."""
    text = span(values)
    return text if len(text) <= 8 else span(values, 3)


def _interval(table: _Rows[Skip]) -> list[Column]:
    """The bootstrap interval of λ, where any skip's is wider than what λ itself prints."""
    if all(s.lam_low is None or s.lam_high is None or s.lam_high - s.lam_low <= 1e-6 for row in table.rows for s in row):
        return []
    cells = [span([v for s in row for v in (s.lam_low, s.lam_high)], 3) for row in table.rows]
    return [Column(header="95 %", cells=cells, rank=4)]


def _probed(table: _Rows[Skip]) -> list[Column]:
    """What random cotangents say of each path, where there were any."""
    if all(s.probe is None for row in table.rows for s in row):
        return []
    found = [[s.probe for s in row if s.probe is not None] for row in table.rows]
    return [
        Column(header="tr J/d", cells=[_brief([p.trace for p in row]) for row in found], rank=4),
        Column(header="‖J‖²/d", cells=[_brief([p.frobenius for p in row]) for row in found], rank=8),
    ]


def _differs(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) > 1e-6 * max(abs(one), abs(other))
