"""What is profiled: every architecture of the libraries that can be named by a rule, and every labelled model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType

from tests.corpus.case import Case
from tests.corpus.catalogue import diffusers, others, timm, torchvision, transformers
from tests.corpus.labels import Label, read_labels

SOURCES = (torchvision, timm, transformers, diffusers, others)
QUICK = (torchvision, timm, diffusers, others)  # transformers reads the config of every model type
_WRITTEN_HERE = "written for the corpus"
_LIBRARY_OF = {"hf": "transformers", "tests": _WRITTEN_HERE, "gradflow": "gradflow.zoo"}
LIBRARIES = ("torchvision", "timm", "transformers", "diffusers", *others.LIBRARIES, "torch", "gradflow.zoo", _WRITTEN_HERE)


def catalogue(labels: Iterable[Label] | None = None, sources: Sequence[ModuleType] = SOURCES) -> list[Case]:
    """All cases, library by library and by name within each. A labelled model of a library takes the place of an unlabelled case of the same target."""
    labelled = [label.case for label in (read_labels() if labels is None else labels)]
    own = [case for source in sources for case in source.cases()]
    names = {case.target: case.name for case in own if not case.target.startswith("tests.")}
    replaced = {case.target for case in labelled} & names.keys()
    cases = [case for case in own if case.check != "profile" or case.target not in replaced]
    known = {case.key for case in cases}
    cases += _distinct([replace(case, library=library(case.target), name=names.get(case.target, case.name)) for case in labelled if case.key not in known])
    order = {name: i for i, name in enumerate(LIBRARIES)}
    return sorted(cases, key=lambda c: (order[c.library], c.name, c.check != "profile", c.key))


def library(target: str) -> str:
    """The table of the page in which a target stands."""
    package = target.partition(":")[0].partition(".")[0]
    return _LIBRARY_OF.get(package, package)


def _distinct(cases: Sequence[Case]) -> list[Case]:
    """Cases that share a name carry their arguments in it."""
    several = Counter((case.library, case.name) for case in cases)
    return [
        replace(case, name=f"{case.name} ({', '.join(f'{k}={v}' for k, v in case.arguments.items())})") if several[case.library, case.name] > 1 else case
        for case in cases
    ]
