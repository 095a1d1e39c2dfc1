"""What is differentiated: a loss, or a seeded probe of the output. An objective answers with the roots of the backward pass and runs none."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gradflow.errors import LossError, NoGradient
from gradflow.subject.losses import NAMED, NamedLoss
from gradflow.subject.outputs import differentiable_outputs, own_loss, primary_output, scalar_output
from gradflow.subject.seeding import draw, stream
from gradflow.subject.structure import described, sizes

LossFunction = Callable[..., object]
NAMES = ("probe", "model", *NAMED)


@dataclass(frozen=True, kw_only=True)
class Roots:
    """Where the backward pass starts: `torch.autograd.backward(tensors, cotangents)`.

    Attributes:
        tensors: one scalar loss, or the outputs that are probed.
        cotangents: aligned with `tensors`; None stands for 1.
        value: the number that is differentiated; 0-d, detached, still on the device.
    """

    tensors: tuple[torch.Tensor, ...]
    cotangents: tuple[torch.Tensor | None, ...]
    value: torch.Tensor


class Objective(ABC):
    """Turns a model's output into roots. `name` and `source` are final once it was called: the automatic choice waits for the first output."""

    name: str
    source: str

    @abstractmethod
    def __call__(self, output: object) -> Roots:
        """Roots for one output.

        Raises:
            LossError: the loss does not fit the output, or is not one real number.
            NoGradient: nothing to walk back from. What a user's own loss raises goes through.
        """


def choose_loss(
    *,
    loss: str | LossFunction | None,
    targets: object | None,
    model: torch.nn.Module,
    seed: int,
    file_loss: str | LossFunction | None = None,
) -> Objective:
    """The objective for a run.

    `loss` wins, then the model file's own, then the first of these that the output has: its `.loss`, being one number, anything to probe.
    Names: "probe", "model" (the output's `.loss`), and those of `losses.NAMED`, which use the given targets, else draw some under the seed.
    cross_entropy and nll read a 3-d output as [batch, tokens, classes], any other as torch does.

    Raises:
        LossError: no loss has this name, or a callable cannot take (output, targets) or (output).
    """
    chosen = file_loss if loss is None else loss
    source = "model file's `loss`" if loss is None else "given"
    if targets is not None and not isinstance(targets, torch.Tensor) and callable(targets):
        targets = targets()
    if isinstance(chosen, type):
        raise LossError(loss=chosen.__name__, reason="it is a class", remedy=f"Give an instance: {chosen.__name__}().")
    if chosen is None:
        return _Automatic(type(model).__name__, seed)
    if isinstance(chosen, str):
        return _named(chosen, targets, type(model).__name__, seed)
    return _Custom(chosen, targets, source)


def check_loss(name: str) -> None:
    """Refuse a name that no loss has.

    Raises:
        LossError: that is it.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise LossError(loss=name, reason="there is no loss of this name", remedy=f"{hint}Choose from {', '.join(NAMES)}, or define `loss` in the model file.")


def _named(name: str, targets: object | None, kind: str, seed: int) -> Objective:
    if name == "probe":
        return _Probe(kind, seed)
    if name == "model":
        return _ModelLoss(kind)
    check_loss(name)
    return _Named(name, NAMED[name], targets, kind, seed)


class _Probe(Objective):
    """A Gaussian cotangent on every differentiable output: the gradient of ⟨v, output⟩."""

    name = "probe"

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed
        self.source = f"Gaussian cotangent on every differentiable output, drawn with seed {seed}"

    def __call__(self, output: object) -> Roots:
        found = [tensor for _, tensor in differentiable_outputs(output)]
        if not found:
            raise NoGradient(what=f"The output of {self._kind}", found=described(output))
        generator = stream(self._seed, "probe")
        cotangents = [_drawn_like(tensor, generator) for tensor in found]
        return Roots(tensors=tuple(found), cotangents=tuple(cotangents), value=_inner(found, cotangents))


def _drawn_like(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A Gaussian cotangent for an output, of its own type: nested and wrapped tensors do not add up with ordinary ones."""
    drawn = draw(sizes(output), output.dtype, generator).to(output.device)
    if output.layout is torch.jagged:
        return torch.nested.nested_tensor_from_jagged(drawn, offsets=output.detach().offsets())  # type: ignore[attr-defined]
    if type(output).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
        return drawn
    if hasattr(output, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(drawn, output.device_mesh, output.placements)  # type: ignore[attr-defined]
    return torch.empty_like(output.detach()).copy_(drawn)


def _inner(outputs: list[torch.Tensor], cotangents: list[torch.Tensor]) -> torch.Tensor:
    """Σ Re⟨v, output⟩, in float32 at least: a half-precision sum over a vocabulary would overflow."""
    terms = []
    for output, cotangent in zip(outputs, cotangents, strict=True):
        packed = (t.detach().values() if t.layout is torch.jagged else t.detach() for t in (output, cotangent))
        left, right = (torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in packed)
        wide = torch.promote_types(left.dtype, torch.float32)
        terms.append((left.to(wide) * right.to(wide)).sum())
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()


class _ModelLoss(Objective):
    name = "model"
    source = "the model's own `.loss`"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, output: object) -> Roots:
        loss = own_loss(output)
        if loss is None:
            raise LossError(
                loss=self.name,
                reason=f"the output of {self._kind} has no `.loss` that is one real number with a gradient; it is {described(output)}",
                remedy="Give the inputs from which the model computes its loss (labels, for transformers), or another --loss.",
            )
        return _scalar(loss)


class _ScalarOutput(Objective):
    name = "output"
    source = "the model's output, a single number"

    def __call__(self, output: object) -> Roots:
        assert isinstance(output, torch.Tensor)  # chosen only where it is
        return _scalar(output)


class _Automatic(Objective):
    """Decides at the first output, and stays with the decision: a run of several batches has one objective."""

    name = "automatic"
    source = "decided by the model's output"

    def __init__(self, kind: str, seed: int) -> None:
        self._kind, self._seed = kind, seed
        self._chosen: Objective | None = None

    def __call__(self, output: object) -> Roots:
        if self._chosen is None:
            self._chosen = self._decide(output)
            self.name, self.source = self._chosen.name, self._chosen.source
        return self._chosen(output)

    def _decide(self, output: object) -> Objective:
        if own_loss(output) is not None:
            return _ModelLoss(self._kind)
        if scalar_output(output) is not None:
            return _ScalarOutput()
        return _Probe(self._kind, self._seed)


class _Named(Objective):
    def __init__(self, name: str, loss: NamedLoss, targets: object | None, kind: str, seed: int) -> None:
        self.name = name
        self._loss, self._targets, self._kind, self._seed = loss, targets, kind, seed
        drawn = f"random targets drawn with seed {seed}" if targets is None else "the given targets"
        self.source = f"named, with {drawn}" if loss.targets is not None else "named"

    def __call__(self, output: object) -> Roots:
        tensor = primary_output(output, f"The output of {self._kind}")
        try:
            targets = self._targets_for(tensor)
            value = self._loss.value(tensor, targets)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            shape = f"an output of shape {list(tensor.shape)}"
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
            raise LossError(loss=self.name, reason=f"it does not fit {shape}: {reason}", remedy="Give targets that fit, or another --loss.") from error
        return _checked(value, self.name)

    def _targets_for(self, output: torch.Tensor) -> torch.Tensor:
        if self._loss.targets is None:
            return output
        if self._targets is None:
            return self._loss.targets(output, stream(self._seed, "targets"))
        return torch.as_tensor(self._targets).to(output.device)


class _Custom(Objective):
    """A user's function of (output, targets) or of (output)."""

    def __init__(self, loss: LossFunction, targets: object | None, source: str) -> None:
        self.name = str(getattr(loss, "__name__", type(loss).__name__))
        self.source = source
        self._loss = loss
        self._arguments = (targets,) if _takes_targets(loss, self.name, targets is not None) else ()

    def __call__(self, output: object) -> Roots:
        return _checked(self._loss(output, *self._arguments), self.name)


def _takes_targets(loss: LossFunction, name: str, there_are_targets: bool) -> bool:
    function = loss.forward if isinstance(loss, torch.nn.Module) else loss  # a module's __call__ takes anything
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return there_are_targets
    takes = {count: _binds(signature, count) for count in (1, 2)}
    if takes[2] and (there_are_targets or not takes[1]):
        if not there_are_targets:
            raise LossError(
                loss=name,
                reason="it takes (output, targets), and there are no targets",
                remedy="Define `targets` beside it, or give a --batch FILE with inputs and targets.",
            )
        return True
    if not takes[1]:
        raise LossError(loss=name, reason=f"it takes {signature}", remedy="Define it as loss(output, targets) or loss(output).")
    return False


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def _checked(value: object, name: str) -> Roots:
    """The roots of what a loss returned.

    Raises:
        LossError: not a tensor, or not one real number.
        NoGradient: one number that does not depend on the parameters.
    """
    if not isinstance(value, torch.Tensor):
        raise LossError(loss=name, reason=f"it returned {described(value)}, not a tensor", remedy="Return a 0-d tensor; leave .item() out.")
    if value.numel() != 1:
        raise LossError(loss=name, reason=f"it returned {described(value)}, not one number", remedy="Reduce it, e.g. with .mean().")
    if value.is_complex():
        raise LossError(loss=name, reason=f"it returned {described(value)}, and only a real number has a gradient", remedy="Return its abs() or real part.")
    if not value.requires_grad:
        raise NoGradient(what=f"Loss {name!r}", found=described(value))
    return _scalar(value)


def _scalar(loss: torch.Tensor) -> Roots:
    return Roots(tensors=(loss,), cotangents=(None,), value=loss.detach().reshape(()))
