"""What a rule is, and which rules with which limits a run is judged by."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gradflow.errors import UsageError
from gradflow.records import Limits, Severity

MOST_DECADES = 30.0
_PART = 4  # characters of a word that names a rule by a part of its name


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        code, name: as printed, e.g. GF101 vanishing-gradient.
        what: what it looks at.
        why: what the finding means for training.
        example: a few lines of a model that break it.
        fix: the next step.
        warning, error: the measured value beyond which it is a finding of that severity; None where it never is one by a limit.
        note: the value beyond which, short of these, it is a note that counts in the severity of a report; None where no note counts.
        below: whether values below the limits break the rule, or values above.
        severity_without_limit: of rules that have none.
        most: the decades that one finding adds to the severity of a report at most.
        tolerance: decades by which a finding may grow before it counts as worse than one that was there before.
        neutral: the value of a model in which nothing is wrong, on whose side of harm every limit lies; None where any limit makes sense.
    """

    code: str
    name: str
    what: str
    why: str
    example: str
    fix: str
    warning: float | None = None
    error: float | None = None
    note: float | None = None
    below: bool = False
    severity_without_limit: Severity = "info"
    most: float = MOST_DECADES
    tolerance: float = 0.5
    neutral: float | None = None

    def severity(self, value: float, allowance: float = 0.0) -> tuple[Severity, float] | None:
        """The severity of a value and the limit it broke; `allowance` widens the limits by that many decades."""
        factor = 10.0 ** (-allowance if self.below else allowance)
        limits: tuple[tuple[Severity, float | None], ...] = (("error", self.error), ("warning", self.warning))
        for severity, limit in limits:
            if limit is not None and (value < limit * factor if self.below else value > limit * factor):
                return severity, limit * factor
        return None

    def decades(self, value: float, allowance: float = 0.0) -> float:
        """How far a value lies beyond the first limit, in powers of ten, MOST_DECADES at most: what an exact 0 counts."""
        return 0.0 if self.first is None else self._beyond(self.first, value, allowance)

    def noted(self, value: float) -> float:
        """How far a value lies beyond the limit of notes, in powers of ten; 0 of a rule that has none."""
        return 0.0 if self.note is None else self._beyond(self.note, value, 0.0)

    def _beyond(self, limit: float, value: float, allowance: float) -> float:
        distance = math.log10(limit / max(value, 1e-300)) if self.below else math.log10(max(value, 1e-300) / max(limit, 1e-300))
        return min(MOST_DECADES, max(0.0, distance - allowance))

    @property
    def first(self) -> float | None:
        """The limit of a warning or an error that is met first."""
        return self.warning if self.warning is not None else self.error

    @property
    def severities(self) -> tuple[Severity, ...]:
        """What its findings can be, worst first."""
        limits = (("error", self.error), ("warning", self.warning), ("info", self.note))
        found: list[Severity] = [s for s, limit in limits if limit is not None]  # type: ignore[misc]
        return tuple(found) or (self.severity_without_limit,)

    def allows(self, limit: float) -> bool:
        """Whether the first limit may lie at `limit`: a finite number of 0 or more, and not where the neutral value would break the rule."""
        sensible = self.neutral is None or (limit < self.neutral if self.below else limit > self.neutral)
        return math.isfinite(limit) and limit >= 0 and sensible

    @property
    def limits(self) -> Limits:
        """As a report holds them; one that was moved beyond every number is none."""
        warning, error, note = (None if limit is None or not math.isfinite(limit) else limit for limit in (self.warning, self.error, self.note))
        return Limits(warning=warning, error=error, note=note)

    def moved(self, limit: float) -> Rule:
        """With its first limit at `limit`, the others as many decades from it as before."""
        if self.warning is None:
            return replace(self, error=limit)
        error, note = (None if other is None else limit * other / self.warning if self.warning else limit for other in (self.error, self.note))
        return replace(self, warning=limit, error=error, note=note)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of a run: `rules[code]` has the limits that hold, `code in rules` says whether it is selected."""

    table: Mapping[str, Rule]
    selected: frozenset[str]

    def __getitem__(self, code: str) -> Rule:
        return self.table[code]

    def __contains__(self, code: object) -> bool:
        return code in self.selected

    @property
    def limits(self) -> dict[str, Limits]:
        """The limits in force, by the code of each rule that is selected."""
        return {code: rule.limits for code, rule in self.table.items() if code in self.selected}


OPTIONS = ("--select", "--ignore", "--limit")


def choose(
    table: Mapping[str, Rule], select: Sequence[str] = (), ignore: Sequence[str] = (), limits: Mapping[str, float] | None = None,
    named: tuple[str, str, str] = OPTIONS,
) -> Rules:  # fmt: skip
    """The rules selected, all by default, but for those ignored; codes may be given by their beginning ("GF2") or by name.

    Args:
        limits: code or name of a rule -> where its first limit is moved to.
        named: what the caller calls `select`, `ignore` and `limits`, for errors.

    Raises:
        UsageError: no rule has such a code, or the rule has no limit to move, or the limit is none that makes sense there.
    """
    moved = dict(table)
    for given, limit in (limits or {}).items():
        (code, *more) = matching(table, given, named[2])
        if more or table[code].first is None:
            raise UsageError(option=named[2], value=f"{given}={limit:g}", expected="the code of one rule that has a limit")
        if not table[code].allows(limit):
            raise UsageError(option=named[2], value=f"{given}={limit:g}", expected=_sensible(table[code]))
        moved[code] = table[code].moved(limit)
    chosen = {code for given in select for code in matching(table, given, named[0])} if select else set(table)
    chosen -= {code for given in ignore for code in matching(table, given, named[1])}
    return Rules(table=moved, selected=frozenset(chosen))


def _sensible(rule: Rule) -> str:
    if rule.neutral is None:
        return "a limit that is a finite number of 0 or more"
    if rule.below:
        return f"a limit of 0 or more and below {rule.neutral:g}: {rule.code} is for values below it, and {rule.neutral:g} is healthy"
    return f"a finite limit above {rule.neutral:g}: {rule.code} is for values above it, and {rule.neutral:g} is healthy"


def matching(table: Mapping[str, Rule], given: str, option: str) -> list[str]:
    """The codes that `given` names: a code, its beginning, or a rule's name.

    Raises:
        UsageError: of `option`, with the nearest right one: there is none.
    """
    wanted = given.strip()
    found = [code for code, rule in table.items() if wanted and (code.startswith(wanted.upper()) or rule.name == wanted.lower())]
    if not found:
        near = _near(table, wanted)
        hint = f"; the nearest is {near}" if near else ""
        raise UsageError(option=option, value=given, expected=f"the code, its beginning or the name of a rule (gradflow rule lists them){hint}")
    return found


def _near(table: Mapping[str, Rule], wanted: str) -> str:
    """The code that differs in one character, or a name that is alike; empty where none is."""
    codes = [code for code in table if len(code) == len(wanted) and sum(a != b for a, b in zip(code, wanted.upper(), strict=True)) == 1]
    names = {rule.name: code for code, rule in table.items()}
    plain = wanted.lower().replace("_", "-")
    parts = [name for name in names if len(plain) >= _PART and plain in name]
    return next(iter([*codes, *difflib.get_close_matches(plain, names, n=1), *parts]), "")
