"""What the command line and `[tool.gradflow]` together ask of `gradflow check`: where it runs, its targets, its outputs. The command line wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradflow import errors
from gradflow.cli import output
from gradflow.configuration import Configuration, Entry, Settings

if TYPE_CHECKING:
    from gradflow.assembly import Options
    from gradflow.checking import Target

_STDOUT = Path("-")
_SUFFIXES = {".sarif": "sarif", ".xml": "junit", ".md": "markdown", ".json": "json"}
_UNNAMED = ("select", "ignore", "limits", "arg")


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Attributes:
    folder: in which the check runs; paths are relative to it.
    entries: the targets, each with all that is said about it.
    """

    folder: Path
    entries: Sequence[Entry]


def goals(named: Sequence[str], command: Settings, configuration: Configuration) -> Goals:
    """The targets that are named on the command line, with what `targets` says of them; or else all of `targets`, which run in the folder of their file.

    Raises:
        errors.ConfigurationError: there are none, or `[tool.gradflow]` says for all of them what none can be run with.
        errors.GradflowError: the command line does.
    """
    here = Path.cwd()
    home = configuration.folder or here
    if not named and not configuration.targets:
        raise errors.ConfigurationError(
            place="gradflow check",
            reason="there are no targets",
            remedy='Name them (gradflow check model.py torchvision:resnet18), or list them in pyproject.toml: [tool.gradflow] targets = ["model.py"].',
        )
    folder = here if named else home
    listed: dict[str, list[Entry]] = {}
    for entry in configuration.targets:
        listed.setdefault(_identity(entry.target, home), []).append(entry)
    found = [replace(e, target=name) for name in named for e in listed.get(_identity(name, here), [Entry(target=name)])] if named else configuration.targets
    _check_shared(command, configuration.defaults, [entry.settings for entry in found])
    settings = [command.over(entry.settings).over(configuration.defaults) for entry in found]
    entries = tuple(replace(e, settings=_placed(s, folder)) for e, s in zip(found, settings, strict=True))
    return Goals(folder=folder, entries=entries)


def _check_shared(command: Settings, defaults: Settings, own: Sequence[Settings]) -> None:
    """What all targets are run with is refused once, before the first one; what a target's own table says is that target's trouble."""
    from gradflow.assembly import check_options

    check_options(_options(command))
    replaced = {field.name: None for field in fields(Settings) if all(getattr(settings, field.name) is not None for settings in own)}
    try:
        check_options(_options(command.over(replace(defaults, **replaced))))
    except errors.GradflowError as error:
        raise errors.ConfigurationError(place="[tool.gradflow]", reason=error.fact.removesuffix("."), remedy=error.remedy) from error


def _identity(target: str, folder: Path) -> str:
    """One text for every way to write a file's path."""
    path, colon, name = target.partition(":") if not target.endswith(".py") else (target, "", "")
    return f"{(folder / path).resolve()}{colon}{name}" if path.endswith(".py") else target


def _placed(settings: Settings, folder: Path) -> Settings:
    return replace(
        settings,
        weights=None if settings.weights is None else placed(settings.weights, folder),
        batch=None if settings.batch is None else placed(settings.batch, folder),
    )


def placed(path: Path, folder: Path) -> Path:
    """A path that is given here, as it reads in `folder`."""
    absolute = Path.cwd() / path
    if path == _STDOUT or (folder == Path.cwd() and not path.is_absolute()):
        return path
    return absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute


def check_apart(outputs: Sequence[tuple[str, Path]], entries: Sequence[Entry], baseline: Path | None) -> None:
    """No output is a file that the check reads; called in the folder in which it runs.

    Raises:
        refusals.OverwritesInput: one is.
    """
    reads: dict[str, Path | str | None] = {f"the target {entry.target}": entry.target for entry in entries}
    for entry in entries:
        reads |= {f"the weights of {entry.target}": entry.settings.weights, f"the batch of {entry.target}": entry.settings.batch}
    output.check_apart([("--output", file) for _, file in outputs], {**reads, "the baseline": baseline})


def targets(entries: Sequence[Entry]) -> tuple[Target, ...]:
    """What is checked, each under a name of its own.

    Raises:
        errors.UsageError: a rule or a limit is not valid, or none of the rules is left.
    """
    from gradflow.checking import Target
    from gradflow.rules import RULES, choose

    found = []
    for entry, label in zip(entries, labels(entries), strict=True):
        s = entry.settings
        rules = choose(RULES, s.select or (), s.ignore or (), s.limits)
        if not rules.selected:
            raise errors.UsageError(option="--ignore", value=", ".join(s.ignore or ()), expected=f"to leave a rule to judge {label} by")
        found.append(Target(spec=entry.target, label=label, options=_options(s), rules=rules, listed=entry.location))
    return tuple(found)


def _options(s: Settings) -> Options:
    from gradflow.assembly import Options

    plain = Options()
    return Options(
        arguments=s.arg or {},
        weights=s.weights,
        inputs=tuple(s.input or ()),
        batch=s.batch,
        loss=s.loss,
        device=plain.device if s.device is None else s.device,
        dtype=s.dtype,
        amp=s.amp,
        evaluate=bool(s.eval),
        seed=s.seed or 0,
        trust=bool(s.trust),
        batches=plain.batches if s.batches is None else s.batches,
        probes=s.probes or 0,
        spectrum=bool(s.spectrum),
    )


def labels(entries: Sequence[Entry]) -> list[str]:
    """Each target as it was given; where one comes several times with the arguments that tell it from the others, `model.py (depth=20)`, or with what
    else does, or at last with its number."""
    found = [entry.target for entry in entries]
    for tell in (_arguments, _settings):
        found = _apart(found, [tell(entry.settings) for entry in entries])
    times: dict[str, int] = {}
    for i, label in enumerate(found):
        times[label] = times.get(label, 0) + 1
        if times[label] > 1:
            found[i] = f"{label} #{times[label]}"
    return found


def _apart(given: Sequence[str], told: Sequence[Mapping[str, str]]) -> list[str]:
    """Labels that are the same, each with those of its words in which they differ."""
    found = []
    for label, own in zip(given, told, strict=True):
        same = [words for other, words in zip(given, told, strict=True) if other == label]
        words = ", ".join(f"{name}={value}" for name, value in own.items() if any(other.get(name) != value for other in same))
        found.append(f"{label} ({words})" if words else label)
    return found


def _arguments(settings: Settings) -> dict[str, str]:
    return {name: str(value) for name, value in (settings.arg or {}).items()}


def _settings(settings: Settings) -> dict[str, str]:
    own = {name: value for name, value in vars(settings).items() if value is not None and name not in _UNNAMED}
    return {name: " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value) for name, value in own.items()}


def pairs(formats: Sequence[str], outputs: Sequence[Path], configuration: Configuration) -> tuple[tuple[str, Path], ...]:
    """(format, file) in order; a format without a file goes to standard output, which takes one. Formats of the command line set the configuration's aside.

    Raises:
        errors.UsageError: there are more files than formats, two formats for one place, or a file whose name says another format.
        errors.OutputFileError: a file cannot be written.
    """
    if formats:
        names, files = list(formats), list(outputs)
    else:
        names, files = list(configuration.formats) or ["text"], list(outputs or configuration.outputs)
    if len(files) > len(names):
        raise errors.UsageError(option="--output", value=files[len(names)], expected="no more files than formats: they are paired in order")
    found = list(zip(names, [*files, *[_STDOUT] * (len(names) - len(files))], strict=True))
    for i, (name, file) in enumerate(found):
        other = next((n for n, f in found[:i] if f == file), None)
        if other is not None:
            place = "standard output" if file == _STDOUT else str(file)
            raise errors.UsageError(option="--format", value=name, expected=f"an --output of its own, since {other} takes {place}; they are paired in order")
        meant = _SUFFIXES.get(file.suffix)
        if meant is not None and meant != name and (meant in names or meant != "json") and not (name == "sarif" and meant == "json"):
            remedy = f"a file for {name}: formats and outputs are paired in order, and `--output -` is standard output"
            raise errors.UsageError(option="--output", value=file, expected=remedy)
        output.check_writable(file)
    return tuple(found)
