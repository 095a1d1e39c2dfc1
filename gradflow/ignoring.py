"""Comments in the user's source that silence findings: `# gradflow: ignore[GF203]`. Reads source as text and runs none of it.

A comment speaks for its own line, and at the end of a statement of several lines for all of them. `# gradflow: ignore` alone means every rule; several
codes are separated by commas, and a rule may be given by its name or the beginning of its code, as for --select. A comment that silences nothing is told,
as is one that is not written so, and what a comment on every rule silences.
"""

from __future__ import annotations

import difflib
import io
import linecache
import re
import tokenize
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gradflow.errors import UsageError
from gradflow.records import Finding, Location, Report, Silenced
from gradflow.rules import EVERY, RULES, matching

_WORD = "gradflow:"
_COMMENT = re.compile(r"#\s*gradflow:\s*(?P<word>[\w-]+)\s*(?P<list>\[(?P<codes>[^\]#]*)(?P<end>\]?))?(?P<rest>[^#]*)")
_CODE = re.compile(r"gf\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Comment:
    """One `# gradflow: ignore`, or what was meant as one.

    Attributes:
        place: its file and line.
        first: the first line for which it speaks; the last is its own.
        codes: as they are written; empty for all rules.
        fault: why it silences nothing; empty where it can.
    """

    place: Location
    first: int
    codes: tuple[str, ...]
    fault: str = ""


@dataclass(kw_only=True)
class Comments:
    """The comments of one run over several targets: one that silences a finding of any of them is used."""

    _files: dict[str, tuple[Comment, ...]] = field(default_factory=dict)
    _used: dict[tuple[Location, str], set[str]] = field(default_factory=dict)  # the rules that each code of a comment silenced
    _looked_for: set[str] = field(default_factory=set)

    def apply(self, findings: Sequence[Finding], report: Report, rules: Container[str] = EVERY) -> tuple[tuple[Finding, ...], tuple[Silenced, ...]]:
        """The findings that no comment silences, and the others, each in the order given.

        Args:
            report: where they come from; unused comments are looked for in the files that it names.
            rules: those that were looked for; a comment on another is not called unused.
        """
        for file in _files(report):
            self._of(file)
        self._looked_for.update(code for code in RULES if code in rules)
        silenced = [self._silences(finding) for finding in findings]
        kept = tuple(f for f, off in zip(findings, silenced, strict=True) if not off)
        return kept, tuple(Silenced(finding=f, by="ignored") for f, off in zip(findings, silenced, strict=True) if off)

    def notes(self) -> tuple[str, ...]:
        """Sentences on the comments below the current directory that silenced nothing, or that speak of every rule, by file and line."""
        here = Path.cwd().resolve()
        comments = [c for file in sorted(self._files) if Path(file).resolve().is_relative_to(here) for c in self._files[file]]
        return tuple(f"{_shown(comment.place, here)}: {said}" for comment in comments for said in self._said_of(comment))

    def _said_of(self, comment: Comment) -> Iterator[str]:
        if comment.fault:
            yield comment.fault
        elif not comment.codes and (comment.place, "") in self._used:
            found = ", ".join(sorted(self._used[comment.place, ""]))
            yield f"gradflow: ignore silences every rule, here {found}; gradflow: ignore[{found}] would leave the others"
        elif not comment.codes and self._looked_for == {*RULES}:
            yield "unused: gradflow: ignore silences nothing"
        for code in () if comment.fault else comment.codes:
            if not _meant(code):
                yield f"gradflow: ignore[{code}] names no rule; gradflow rule lists them"
            elif (comment.place, code) not in self._used and self._looked_for & _meant(code):
                yield f"unused: gradflow: ignore[{code}] silences nothing"

    def _of(self, file: str) -> tuple[Comment, ...]:
        if file not in self._files:
            self._files[file] = tuple(comments_of(file))
        return self._files[file]

    def _silences(self, finding: Finding) -> bool:
        """Whether a comment speaks of it; every comment that does is used."""
        place, off = finding.location, False
        for comment in self._of(place.file) if place else ():
            if comment.fault or not (place and comment.first <= place.line <= comment.place.line):
                continue
            for code in comment.codes or ("",):
                if not code or finding.rule in _meant(code):
                    self._used.setdefault((comment.place, code), set()).add(finding.rule)
                    off = True
        return off


def apply_comments(
    findings: Sequence[Finding], report: Report, rules: Container[str] = EVERY
) -> tuple[tuple[Finding, ...], tuple[Silenced, ...], tuple[str, ...]]:
    """What `Comments` says of a single report: the findings that stay, those silenced, and sentences on comments."""
    comments = Comments()
    return *comments.apply(findings, report, rules), comments.notes()


def comments_of(file: str) -> Iterator[Comment]:
    """The comments of a file, in order; none of one that cannot be read or is no Python. A text in quotes is no comment."""
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file))
    if _WORD not in text:
        return
    start = 0  # line on which the statement begins, 0 between two
    waiting: list[tuple[int, str]] = []  # comments on the lines of one statement
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                waiting.append((token.start[0], token.string))
            elif token.type == tokenize.NEWLINE or (token.type == tokenize.NL and not start):
                yield from _said(file, waiting, start, token.start[0])
                waiting, start = [], 0
            elif not start and token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
                start = token.start[0]
    except (tokenize.TokenError, SyntaxError):
        return


def _said(file: str, comments: Sequence[tuple[int, str]], start: int, end: int) -> Iterator[Comment]:
    for line, text in comments:
        for match in _COMMENT.finditer(text):
            codes = tuple(code.strip() for code in (match["codes"] or "").split(",") if code.strip())
            fault = _fault(match, codes)
            if fault is not None:
                yield Comment(place=Location(file=file, line=line), first=start if start and line == end else line, codes=codes, fault=fault)


def _fault(match: re.Match[str], codes: Sequence[str]) -> str | None:
    """Why it silences nothing, and what to write; empty where it can silence, None where it is prose that begins with gradflow's name."""
    word, rest = match["word"], match["rest"].strip()
    written = f"gradflow: {match[0].partition(':')[2].strip()}"
    named = ", ".join(dict.fromkeys(codes or [code.upper() for code in _CODE.findall(word + rest)]))
    remedy = f"write # gradflow: ignore[{named or 'CODE'}]"
    if word.lower() != "ignore":
        meant = match["list"] or named or difflib.get_close_matches(word.lower(), ["ignore"])
        return f"{written} silences nothing: {word} is no word for it; {remedy}" if meant else None
    if not match["list"]:
        return f"{written} silences nothing: rules stand in brackets; {remedy}" if rest else ""
    return "" if codes and match["end"] else "gradflow: ignore[ is not closed or names no rule: it silences nothing"


@cache
def _meant(code: str) -> frozenset[str]:
    try:
        return frozenset(matching(RULES, code, "ignore"))
    except UsageError:
        return frozenset()


def _files(report: Report) -> list[str]:
    """Every file that the report names."""
    places = [item.location for items in (report.layers, report.skips, report.opaque, report.findings) for item in items]
    return list(dict.fromkeys(place.file for place in places if place is not None))


def _shown(place: Location, here: Path) -> str:
    return f"{Path(place.file).resolve().relative_to(here)}:{place.line}"
