"""What changed between two reports: layers, skips, highways, findings, the verdict. A pure function of two records; touches no tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from gradflow.alignment import Alignment
from gradflow.baseline import is_worse
from gradflow.codec import Document
from gradflow.records import VERDICTS, Finding, Highway, Layer, Location, Report, Severity, Skip, Verdict

DIFFERENCE_SCHEMA = "gradflow/difference/v1"
FACTOR = 2.0
LAMBDA = 1e-3

Value = str | float | None


@dataclass(frozen=True, kw_only=True)
class NumberChange:
    """A number that changed.

    Attributes:
        name: of the layer, skip or highway in the newer report; `was` in the older one.
        field: as in the report's records; "unreached" and "frozen" count parameters, "skips" counts skips.
        before, after: null where the value is not defined; the report says why.
    """

    name: str
    was: str
    field: str
    before: float | None
    after: float | None


@dataclass(frozen=True, kw_only=True)
class WordChange:
    """A kind, a type or a list of operators that changed; the fields are those of a number's change."""

    name: str
    was: str
    field: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """The layers, the skips or the highways.

    Attributes:
        added: names that only the newer report has.
        removed: names that only the older one has.
        words, numbers: what changed in those that both have.
    """

    added: Sequence[str]
    removed: Sequence[str]
    words: Sequence[WordChange]
    numbers: Sequence[NumberChange]


@dataclass(frozen=True, kw_only=True)
class FindingChange:
    """A finding that is new, gone, worse or better; severities and decades are null where there is none.

    Attributes:
        where: in the report in which it stands; the newer one where it stands in both.
        message, location: of the newer one, else of the older.
    """

    change: Literal["new", "worse", "better", "gone"]
    rule: str
    where: str
    severity_before: Severity | None
    severity_after: Severity | None
    decades_before: float | None
    decades_after: float | None
    message: str
    location: Location | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two reports in short."""

    spec: str
    model_class: str
    verdict: Verdict
    severity: float
    layers: int
    skips: int
    highways: int


@dataclass(frozen=True, kw_only=True)
class Difference(Document):
    """What changed from one report to another.

    Attributes:
        factor: gains that changed by less are not listed.
        worse: whether the verdict got worse, or a finding of an error or a warning is new or got worse.
    """

    before: Side
    after: Side
    layers: Part
    skips: Part
    highways: Part
    findings: Sequence[FindingChange]
    factor: float
    worse: bool
    schema: str = DIFFERENCE_SCHEMA


def difference(before: Report, after: Report, factor: float = FACTOR) -> Difference:
    """What changed from `before` to `after`.

    Layers, skips and highways are matched by name, where numbered blocks came or went by what is in them. A gain changed where it did by more than `factor`,
    a λ by more than 1e-3, a finding where its severity did, or its extent by more than its rule's tolerance.
    """
    align = Alignment({layer.name: layer.type for layer in before.layers}, {layer.name: layer.type for layer in after.layers})
    routes = _routes(before.highways, after.highways, align)

    def place(where: str) -> str | None:
        return routes[where] if where in routes else align(where)

    findings = tuple(_findings(before.findings, after.findings, place))
    worse = VERDICTS.index(after.verdict) > VERDICTS.index(before.verdict)
    return Difference(
        before=_side(before),
        after=_side(after),
        layers=_part(before.layers, after.layers, _layer_name, align, _LAYER, factor),
        skips=_part(before.skips, after.skips, _skip_name, align, _SKIP, factor),
        highways=_part(before.highways, after.highways, _highway_name, routes.get, _HIGHWAY, factor),
        findings=findings,
        factor=factor,
        worse=worse or any(f.change in ("new", "worse") and f.severity_after != "info" for f in findings),
    )


Item = TypeVar("Item", Layer, Skip, Highway)
_Same = Callable[[Value, Value, float], bool]
_Renaming = Callable[[str], str | None]


def _routes(before: Sequence[Highway], after: Sequence[Highway], align: _Renaming) -> dict[str, str | None]:
    """The name of each older highway in the newer report: of the one with which it shares the most skips, whatever its ends are by now."""
    shared = []
    for old, highway in enumerate(before):
        skips = {align(skip) for skip in highway.skips} - {None}
        shared += [(-len(skips.intersection(other.skips)), old, new) for new, other in enumerate(after) if skips.intersection(other.skips)]
    pairs: dict[str, str | None] = {highway.name: None for highway in before}
    taken: set[int] = set()
    for _, old, new in sorted(shared):
        if pairs[before[old].name] is None and new not in taken:
            pairs[before[old].name] = after[new].name
            taken.add(new)
    return pairs


def _equal(one: Value, two: Value, factor: float) -> bool:
    return one == two


def _near(one: Value, two: Value, factor: float) -> bool:
    """Whether two gains are within a factor; 0 is within none of anything else, nor is what is not defined."""
    if not isinstance(one, float) or not isinstance(two, float) or not one or not two:
        return one == two
    return max(abs(one), abs(two)) <= factor * min(abs(one), abs(two)) and (one > 0) == (two > 0)


def _same_lambda(one: Value, two: Value, factor: float) -> bool:
    return one == two if not isinstance(one, float) or not isinstance(two, float) else abs(one - two) <= LAMBDA


def _layer_name(layer: Layer) -> str:
    return layer.name


def _skip_name(skip: Skip) -> str:
    return skip.id


def _highway_name(highway: Highway) -> str:
    return highway.name


_LAYER: Mapping[str, tuple[Callable[[Layer], Value], _Same]] = {
    "type": (lambda layer: layer.type, _equal),
    "gain": (lambda layer: layer.gain, _near),
    "closed_by": (lambda layer: layer.closed_by, _equal),
    "unreached": (lambda layer: float(sum(p.status == "unreached" for p in layer.parameters)), _equal),
    "frozen": (lambda layer: float(sum(p.status == "frozen" for p in layer.parameters)), _equal),
}
_SKIP: Mapping[str, tuple[Callable[[Skip], Value], _Same]] = {
    "kind": (lambda skip: skip.kind, _equal),
    "form": (lambda skip: skip.form, _equal),
    "lam": (lambda skip: skip.lam, _same_lambda),
    "gain": (lambda skip: skip.gain, _near),
    "bypassed_layers": (lambda skip: float(skip.bypassed_layers), _equal),
}
_HIGHWAY: Mapping[str, tuple[Callable[[Highway], Value], _Same]] = {
    "skips": (lambda highway: float(len(highway.skips)), _equal),
    "trunk_ops": (lambda highway: ", ".join(highway.trunk_ops), _equal),
    "gain": (lambda highway: highway.gain, _near),
    "total_gain": (lambda highway: highway.total_gain, _near),
}


def _part(
    before: Sequence[Item], after: Sequence[Item], named: Callable[[Item], str], align: _Renaming,
    table: Mapping[str, tuple[Callable[[Item], Value], _Same]], factor: float,
) -> Part:  # fmt: skip
    now = {named(item): item for item in after}
    removed: list[str] = []
    words: list[WordChange] = []
    numbers: list[NumberChange] = []
    for item in before:
        was = named(item)
        name = align(was)
        match = now.pop(name, None) if name is not None else None
        if match is None:
            removed.append(was)
            continue
        for field, (read, same) in table.items():
            old, new = read(item), read(match)
            if same(old, new, factor):
                continue
            if isinstance(old, str) and isinstance(new, str):
                words.append(WordChange(name=named(match), was=was, field=field, before=old, after=new))
            elif not isinstance(old, str) and not isinstance(new, str):
                numbers.append(NumberChange(name=named(match), was=was, field=field, before=old, after=new))
    return Part(added=tuple(now), removed=tuple(removed), words=tuple(words), numbers=tuple(numbers))


def _findings(before: Sequence[Finding], after: Sequence[Finding], align: _Renaming) -> Iterator[FindingChange]:
    """New and worse ones in the order of the newer report, then the others in that of the older."""
    old: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in before:
        old.setdefault((finding.rule, align(finding.where)), []).append(finding)
    matched: set[int] = set()
    better: list[FindingChange] = []
    for finding in after:
        same = old.get((finding.rule, finding.where))
        was = same.pop(0) if same else None
        if was is None:
            yield _changed("new", None, finding)
            continue
        matched.add(id(was))
        if is_worse(finding.rule, finding.severity, finding.decades, (was.severity, was.decades)):
            yield _changed("worse", was, finding)
        elif is_worse(was.rule, was.severity, was.decades, (finding.severity, finding.decades)):
            better.append(_changed("better", was, finding))
    yield from better
    yield from (_changed("gone", finding, None) for finding in before if id(finding) not in matched)


def _changed(change: Literal["new", "worse", "better", "gone"], before: Finding | None, after: Finding | None) -> FindingChange:
    told = after or before
    assert told is not None
    return FindingChange(
        change=change,
        rule=told.rule,
        where=told.where,
        severity_before=before.severity if before else None,
        severity_after=after.severity if after else None,
        decades_before=before.decades if before else None,
        decades_after=after.decades if after else None,
        message=told.message,
        location=told.location,
    )


def _side(report: Report) -> Side:
    return Side(
        spec=report.target.spec,
        model_class=report.target.model_class,
        verdict=report.verdict,
        severity=report.severity,
        layers=len(report.layers),
        skips=len(report.skips),
        highways=len(report.highways),
    )
