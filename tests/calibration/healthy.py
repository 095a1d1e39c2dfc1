"""The models of the corpus at their own initialisation and in their own number format: no error, or a reason why the error is right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tests.conftest  # noqa: F401  declares torchvision's operators where its build cannot load them
from gradflow.assembly import Options
from gradflow.errors import GradflowError
from gradflow.profiling import profile_target
from tests.corpus.case import Case, Result
from tests.corpus.catalogue import SOURCES, catalogue
from tests.corpus.labels import read_labels
from tests.corpus.measure import options, quiet, warm
from tests.corpus.runner import Limits, run

_SECONDS = 300.0
LIBRARIES = ("torchvision", "timm", "transformers")
_INTRODUCTION = """
Every model of torchvision, timm and transformers in the [corpus](coverage.md) that runs, as its library builds it, in its own number format and mode, one
random batch, at the cut sizes of the corpus. Such models train, so an error would be false.
"""
_OWED = """
What the rules owe to these models: the error limit of GF102 stands at 1e7, for gains at a first layer reach 2.9e6 (`hf:nanochat`, a small embedding before
a norm) and, by batch and format, 8e5 to 6e6 (`timm:inception_v3`, 94 layers of batch norm without a skip). A layer that starves while the gradient gets past
it (attention's queries at an empty decoder input, a pyramid's last level, a branch that is all but mute) is a warning and no error. So is a tower that is not
called, for the batch has no image for it; so is a starved highway where the branches make up for it (`timm:efficientvim_m1`, 24 of whose skips start at ½) or
where λ = 1 would not mend it; so is a gradient that is not finite where a padding index hides it from every weight.
"""
_TINY = "its library draws the weights from N(0, 1e-10²), for they are meant to be loaded: the first layer's gradient is below 1e-6 of the output's"


@dataclass(frozen=True, kw_only=True)
class Excuse:
    """A model whose error is right: why, and `changes` of its arguments under which it must be gone; none where the model is meant to be so."""

    reason: str
    changes: Mapping[str, object] = field(default_factory=dict)


def _drawn(*inner: str) -> Excuse:
    change = {"initializer_range": 0.02}
    return Excuse(reason=_TINY, changes={name: change for name in inner} if inner else change)


EXCUSES: dict[str, Excuse] = {
    **{f"transformers/{name}": _drawn() for name in ("sam_vision_model", "sam_hq_vision_model", "got_ocr2_vision", "slanext_vision", "pp_formulanet_vision")},
    **{f"transformers/{name}": _drawn() for name in ("deepseek_ocr2_sam_vision_model", "unlimited_ocr_sam_vision_model")},
    **{f"transformers/{name}": _drawn("sam_config") for name in ("deepseek_ocr2_vision", "unlimited_ocr_vision")},
    "transformers/pp_formulanet": _drawn("vision_config"),
    "transformers/efficientnet": Excuse(
        reason="its library draws convolutions of 9 inputs with σ = 0.02, so small that batch norm's ε outweighs the variance: the gradient vanishes",
        changes={"initializer_range": 0.2},
    ),
    "transformers/hrm_text": Excuse(
        reason="it cuts the gradient by design: all but the last cycles run under no_grad, skip and all (GF208; a rule to ignore there)"
    ),
}


def cases() -> list[Case]:
    """What is run: each architecture once."""
    return [case for case in catalogue(read_labels(), SOURCES) if case.check == "profile" and case.library in LIBRARIES]


def controls() -> Iterator[Case]:
    """The excused with their arguments changed."""
    for case in cases():
        excuse = EXCUSES.get(f"{case.library}/{case.name}")
        if excuse and excuse.changes:
            yield replace(case, arguments=_merged(case.arguments, excuse.changes))


def _merged(given: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    found = dict(given)
    for name, change in changes.items():
        old = found.get(name)
        found[name] = {**(old if isinstance(old, Mapping) else {}), **change} if isinstance(change, Mapping) else change
    return found


def look(case: Case) -> Result:
    """Profile one case as the command line would, in its child process; its errors are the result's text, as JSON."""
    quiet()
    try:
        wanted = options(case, "float32")
        report = profile_target(case.target, Options(arguments=wanted.arguments, inputs=wanted.inputs))
    except GradflowError as error:
        return Result(key=case.key, status="own error", error=str(error).splitlines()[0])
    errors = [f"{f.rule} {f.where}: {f.message}" for f in report.findings if f.severity == "error"]
    found = json.dumps({"errors": errors, "severity": report.severity})
    return Result(key=case.key, status="ok", verdict=report.verdict, error=found, dtype=report.environment.dtype)


def measure(resume: Path | None = None, jobs: int = 2) -> dict:
    """Run all cases and the controls; those whose results are in the file `resume` are not run again.

    Returns:
        `rows` of library, name, status, verdict, severity and errors; `controls` likewise.
    """
    quiet()
    wanted, again = cases(), list(controls())
    known = _read(resume)
    warm()
    for result in run([case for case in (*wanted, *again) if case.key not in known], look, Limits(jobs=jobs, seconds=_SECONDS)):
        known[result.key] = result
        if resume:
            with resume.open("a") as file:
                file.write(result.to_line() + "\n")
    return {"rows": [_row(case, known[case.key]) for case in wanted], "controls": [_row(case, known[case.key]) for case in again]}


def _read(file: Path | None) -> dict[str, Result]:
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    return {result.key: result for result in map(Result.from_line, lines)}


def _row(case: Case, result: Result) -> dict:
    found = json.loads(result.error) if result.status == "ok" else {"errors": [], "severity": 0.0}
    return {"library": case.library, "name": case.name, "status": result.status, "verdict": result.verdict, **found}


def unexplained(measured: Mapping[str, Sequence[Mapping]]) -> list[Mapping]:
    """Models with an error that has no reason, and controls that have one."""
    rows = [row for row in measured["rows"] if row["errors"] and f"{row['library']}/{row['name']}" not in EXCUSES]
    return [*rows, *(row for row in measured["controls"] if row["errors"])]


def passes(measured: Mapping[str, Sequence[Mapping]]) -> bool:
    """No error without a reason, and nothing that gradflow could not run."""
    return not unexplained(measured) and all(row["status"] in ("ok", "own error") for row in measured["rows"])


def page(measured: Mapping[str, Sequence[Mapping]]) -> str:
    """The section of docs/calibration.md."""
    rows = measured["rows"]
    ran = [row for row in rows if row["status"] == "ok"]
    counts = [(library, Counter(row["verdict"] for row in ran if row["library"] == library)) for library in LIBRARIES]
    errors = [row for row in ran if row["errors"]]
    lines = [
        "## Healthy models",
        _INTRODUCTION,
        f"**{len(ran) - len(errors)} of {len(ran)} have no error**; {len(rows) - len(ran)} more of the corpus do not run on the machine of this page.",
        "",
        "| library | models | healthy | warnings | sick |",
        "|---|---:|---:|---:|---:|",
        *(f"| {name} | {sum(c.values())} | {c['healthy']} | {c['warnings']} | {c['sick']} |" for name, c in counts),
        "",
        _severities([row["severity"] for row in ran if row["verdict"] == "healthy"]),
        "",
        "Those that are called sick, and why:",
        "",
        "| model | first error | reason | changed | then |",
        "|---|---|---|---|---|",
        *(_excused(row, measured["controls"]) for row in errors),
        _OWED,
    ]
    return "\n".join(lines)


def _severities(healthy: Sequence[float]) -> str:
    """Of healthy models, how far they lie above 0."""
    above = sorted(s for s in healthy if s > 0)
    worst = f", the largest {above[-1]:.1f}" if above else ""
    return f"Of the {len(healthy)} healthy ones {len(healthy) - len(above)} have a severity of 0; {sum(s > 1 for s in above)} have one above 1{worst}."


def _excused(row: Mapping, controls: Sequence[Mapping]) -> str:
    known = EXCUSES.get(f"{row['library']}/{row['name']}")
    control = next((c for c in controls if (c["library"], c["name"]) == (row["library"], row["name"])), None)
    changed = ", ".join(f"`{name}={value}`" for name, value in known.changes.items()) if known else ""
    then = "" if control is None else control["verdict"] or control["status"]
    first = row["errors"][0].split(": ")[0].replace(" ", " at `", 1) + "`"
    return f"| {row['library']}/{row['name']} | {first} | {known.reason if known else '**none**'} | {changed} | {then} |"
