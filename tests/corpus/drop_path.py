"""An oracle that owes nothing to labels: libraries drop whole residual branches at random, so every such call must lie on the branch of a found skip."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from gradflow.observe import Observation, Settings, observe
from gradflow.profiling import Options
from gradflow.subject import choose_batch, choose_loss, load
from tests.corpus.case import Case, Result

_FUNCTIONS = ("drop_path", "stochastic_depth")
# Calls that close no skip by the library's own source: class of the calling block -> when, and what the source does there.
_NO_RESIDUAL: dict[str, Callable[[Any], bool]] = {
    "BottleneckBlock": lambda block: block.shortcut is None,  # timm/models/byobnet.py: drop_path before `if self.shortcut is not None: x = x + shortcut`
    "OsaBlock": lambda block: not block.residual,  # timm/models/vovnet.py: drop_path before `if self.residual: x = x + output[0]`
    "ResNestBottleneck": lambda block: block.downsample is not None,  # timm/models/resnest.py: `x = self.drop_path(x)` drops the shortcut's input, not `out`
}
_LIBRARIES = ("timm", "torchvision", "transformers")


@dataclass(kw_only=True)
class Drops:
    """The tape's values behind the outputs of the calls, each with the module that it was called in."""

    module: str = ""
    values: dict[tuple[Any, int], str] = field(default_factory=dict)
    silent: int = 0

    def note(self, taken: object, output: object) -> None:
        """Note one call; one that hands its input through (a rate of 0, eval mode) drops nothing."""
        if not isinstance(output, torch.Tensor) or output is taken:
            return
        if output.grad_fn is None:
            self.silent += 1
        else:
            self.values.setdefault((output.grad_fn, output.output_nr), self.module)


@contextmanager
def watched(model: nn.Module) -> Iterator[Drops]:
    """Every call of a library's drop-path function while the context is open, by whatever module."""
    drops = Drops()
    patched: list[tuple[Any, str, Callable[..., object]]] = []
    handles = [module.register_forward_pre_hook(functools.partial(_enter, drops, name)) for name, module in model.named_modules()]
    for place in [m for n, m in list(sys.modules.items()) if n.partition(".")[0] in _LIBRARIES]:
        for name in _FUNCTIONS:
            function = vars(place).get(name)
            if callable(function) and not isinstance(function, type) and hasattr(function, "__code__"):
                patched.append((place, name, function))
                setattr(place, name, _noting(function, drops))
    try:
        yield drops
    finally:
        for handle in handles:
            handle.remove()
        for place, name, function in patched:
            setattr(place, name, function)


def _enter(drops: Drops, name: str, module: nn.Module, args: object) -> None:
    drops.module = name


def _noting(function: Callable[..., object], drops: Drops) -> Callable[..., object]:
    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> object:
        output = function(*args, **kwargs)
        drops.note(args[0] if args else next(iter(kwargs.values()), None), output)
        return output

    return noted


def check_drop_path(case: Case, options: Options) -> Result:
    """Run the case in train mode and look for each drop-path call among the branches of the skips that were found."""
    loaded = load(case.target, arguments=options.arguments, seed=0)
    model = loaded.model.train()
    dtype = getattr(torch, options.dtype or "float64")
    model.to(dtype)
    batch = choose_batch(loaded, specs=options.inputs, seed=0, device=torch.device("cpu"), dtype=dtype)
    objective = choose_loss(loss=None, targets=batch.targets, model=model, seed=0, file_loss=loaded.loss)
    with watched(model) as drops:
        observation = observe(model, batch, objective, Settings(seed=0))
    on_tape = {v: where for v, where in drops.values.items() if v in observation.tape.nodes and not closes_nothing(model, where)}
    missed = uncovered(observation, on_tape)
    return Result(
        key=case.key,
        status="ok" if not missed else "crash",
        error=f"{len(missed)} of {len(on_tape)} drop-path calls lie on no skip's branch" if missed else "",
        calls=len(on_tape),
        covered=len(on_tape) - len(missed),
        uncovered=tuple(missed),
    )


def closes_nothing(model: nn.Module, where: str) -> bool:
    """Whether the block that called drop-path adds nothing to its result, by its own source."""
    block = model.get_submodule(where.rpartition(".")[0])
    return _NO_RESIDUAL.get(type(block).__name__, lambda _: False)(block)


def uncovered(observation: Observation, calls: dict[tuple[Any, int], str]) -> list[str]:
    """The modules of the calls whose output is on no branch."""
    on_branch = {node for skip in observation.skips if skip.kind != "detached" for node in skip.branch_nodes}
    return [where for value, where in calls.items() if observation.tape.nodes[value] not in on_branch]
