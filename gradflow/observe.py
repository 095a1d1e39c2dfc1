"""One batch through the model and back, watched. Everything that it changes is put back before it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, fx, nn

from gradflow import errors
from gradflow.forward import Forward, Settings, blame, now, tracked
from gradflow.gauges import Probing, counted_units, sample_gauges
from gradflow.meter import Meter, Readings
from gradflow.recorder import ModuleCall, Origin, Recorder
from gradflow.residual import HighwayPath, SkipPath, find_highways, find_skips
from gradflow.subject import Batch, Objective, Roots
from gradflow.subject.structure import class_name
from gradflow.tape import Leaves, Tape, Value, lift, parameter_users, standing, used_inside, value_of
from gradflow.telling import Tell, nobody

__all__ = ["Chart", "Forward", "Observation", "Settings", "Sight", "blame", "chart", "go_back", "leaves_fused_path", "look", "loss_scale", "observe", "tracked"]

LOSS_SCALE = 65536.0  # GradScaler's first scale; float16 gradients are measured under it, or the largest that fits, and reported without it
_FP16_ROOM = 4096.0


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One run: the lifted tape, what was found on it and what was read off the backward pass. Gradients are still under `loss_scale`."""

    tape: Tape
    skips: Sequence[SkipPath]
    highways: Sequence[HighwayPath]
    readings: Readings
    module_calls: Sequence[ModuleCall]
    outputs: Sequence[Value]
    cuts: Sequence[Origin]
    cut_leaves: Sequence[tuple[Tensor, Origin]]
    samples: int
    loss_value: float
    loss_scale: float
    forward_s: float
    backward_s: float
    analysis_s: float
    inputs_tracked: bool
    dtypes: frozenset[torch.dtype]

    def release(self) -> None:
        """Cut the ties between the graph and the tape: what the backward pass did not free is freed now, and not at the next collection."""
        for node in self.tape.graph.nodes:
            node.meta.clear()
        for mapping in (self.tape.values, self.tape.nodes, self.tape.operators):
            cast(dict[object, object], mapping).clear()


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one forward pass shows: the lifted tape, and what was found on it."""

    tape: Tape
    skips: Sequence[SkipPath]
    highways: Sequence[HighwayPath]
    module_calls: Sequence[ModuleCall]
    inputs_tracked: bool


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A forward pass, ready for the way back.

    Attributes:
        names: of all parameters; `trained`: of those on the tape; `inside`: of those that custom functions use.
        cotangents: each root with what starts there, under `scale`.
        leaves: what gradients are computed for.
    """

    tape: Tape
    skips: Sequence[SkipPath]
    highways: Sequence[HighwayPath]
    names: Mapping[Tensor, str]
    trained: Mapping[Tensor, str]
    inside: frozenset[str]
    scale: float
    cotangents: Sequence[tuple[Tensor, Tensor]]
    leaves: list[Tensor]


def observe(model: nn.Module, batch: Batch, objective: Objective, settings: Settings, bystanders: Sequence[nn.Module] = (), tell: Tell = nobody) -> Observation:
    """Run `batch` forward and back and read the gradient everywhere.

    Floating inputs are put on the tape, so that a skip may start at an input; a model that cannot take them so is run without. `bystanders` are other
    modules that take part (a loss), which are left as they were as well. `tell` takes the phases.

    Raises:
        EmptyBatch: an input has no elements.
        ModelFailed: the forward, the loss or the backward raised; with the model's own frames.
        GradflowError: the loss or the output cannot be differentiated.
    """
    tell("forward")
    return tracked((model, *bystanders), batch, objective, settings, partial(_analyse, tell=tell))


def look(model: nn.Module, batch: Batch, objective: Objective, settings: Settings, bystanders: Sequence[nn.Module] = ()) -> Sight:
    """Run `batch` forward alone and find the skips, as `observe` does and with its errors; a model whose backward fails can be looked at too."""
    return tracked((model, *bystanders), batch, objective, settings, _see)


def _see(model: nn.Module, forward: Forward, settings: Settings, track: bool) -> Sight:
    tape, skips, highways = _find(forward, {p: n for n, p in model.named_parameters()})
    return Sight(tape=tape, skips=skips, highways=highways, module_calls=forward.recorder.module_calls, inputs_tracked=track or not forward.sources)


def _find(forward: Forward, names: Mapping[Tensor, str]) -> tuple[Tape, tuple[SkipPath, ...], tuple[HighwayPath, ...]]:
    tape = lift(forward.roots.tensors, Leaves(inputs=forward.inputs, parameters=names), forward.recorder)
    skips = find_skips(tape.graph)
    return tape, skips, find_highways(skips)


def chart(model: nn.Module, forward: Forward, settings: Settings) -> Chart:
    """Lift a forward pass and find what is needed to run it back.

    Raises:
        NoGradient: nothing that is trained leads to the loss.
    """
    names: dict[Tensor, str] = {p: n for n, p in model.named_parameters()}
    tape, skips, highways = _find(forward, names)
    scale = loss_scale(forward.roots) if settings.amp == "fp16" else 1.0
    trained = {p: names[p] for p in _on_tape(tape, names)}
    leaves = [*trained, *(forward.sources[n] for n in _needed_inputs(tape, skips) if n in forward.sources)]
    if not leaves:
        raise errors.NoGradient(what=f"The loss of {class_name(model)}", found="computed without any of its parameters")
    return Chart(
        tape=tape, skips=skips, highways=highways, names=names, trained=trained, inside=used_inside(tape), scale=scale,
        cotangents=_cotangents(forward.roots, scale), leaves=leaves,
    )  # fmt: skip


def _analyse(model: nn.Module, forward: Forward, settings: Settings, track: bool, tell: Tell) -> Observation:
    tell("analysis")
    began = now()
    way = chart(model, forward, settings)
    tape, skips, highways = way.tape, way.skips, way.highways
    samples = _batch_size(model, forward)
    outputs = _outputs(forward, tape)
    calls = tuple(replace(call, values=tuple(standing(tape, v) for v in call.values)) for call in forward.recorder.module_calls)
    meter = Meter(
        tape,
        skips=skips,
        highways=highways,
        watched=dict.fromkeys([*outputs, *(v for call in calls for v in call.values), *_uncalled(tape, forward.recorder)]),
        parameters={**way.trained, **{p: n for p, n in way.names.items() if n in way.inside and p.requires_grad}},
        kept=way.inside,
        cotangents={v: c for t, c in way.cotangents if (v := value_of(t)) is not None},
        samples=samples,
        probing=Probing(probes=settings.probes, spectrum=settings.spectrum, seed=settings.seed),
        units=counted_units(model),
        spread=sample_gauges(tape, outputs, samples, [t for _, t in forward.inputs]),
    )
    tell("backward")
    analysed = now()
    with meter:
        go_back(way)
    ended = now()
    tell("analysis")
    readings = meter.read()
    return Observation(
        tape=tape,
        skips=skips,
        highways=highways,
        readings=readings,
        module_calls=calls,
        outputs=outputs,
        cuts=tuple(forward.recorder.cuts),
        cut_leaves=tuple(forward.recorder.cut_leaves),
        samples=samples,
        loss_value=float(forward.roots.value.double()),
        loss_scale=way.scale,
        forward_s=forward.seconds,
        backward_s=ended - analysed,
        analysis_s=(analysed - began) + (now() - ended),
        inputs_tracked=track or not forward.sources,
        dtypes=frozenset(n.meta["dtype"] for s in skips for n in (s.fork, s.join)),
    )


def _outputs(forward: Forward, tape: Tape) -> tuple[Value, ...]:
    """The model's outputs that lead to the loss; the loss itself where none does."""
    behind = [standing(tape, v) for t in forward.outputs if (v := value_of(t)) is not None]
    return tuple(v for v in behind if v in tape.nodes) or tuple(v for t in forward.roots.tensors if (v := value_of(t)) is not None)


def go_back(way: Chart) -> None:
    """The backward pass, under whatever hooks its nodes have."""
    with blame("backward pass"):
        torch.autograd.backward([t for t, _ in way.cotangents], [c for _, c in way.cotangents], inputs=way.leaves)


def loss_scale(roots: Roots) -> float:
    """GradScaler's first scale, halved until what starts at a float16 root stays far from that format's largest number."""
    scale = LOSS_SCALE
    for tensor, cotangent in zip(roots.tensors, roots.cotangents, strict=True):
        largest = 1.0 if cotangent is None else float(cotangent.abs().max())
        while tensor.dtype == torch.float16 and largest * scale > _FP16_ROOM:
            scale /= 2
    return scale


def _cotangents(roots: Roots, scale: float) -> list[tuple[Tensor, Tensor]]:
    """Each root with what starts there; 1 for a loss, times the loss scale."""
    pairs = zip(roots.tensors, roots.cotangents, strict=True)
    return [(t, (torch.ones_like(t) if c is None else c.to(t.dtype)) * scale) for t, c in pairs]


def _on_tape(tape: Tape, names: Mapping[Tensor, str]) -> list[Tensor]:
    found = {n.meta["parameter"] for n in tape.graph.nodes if n.op == "get_attr" and n.meta["parameter"]}
    return [p for p, name in names.items() if name in found]


def _needed_inputs(tape: Tape, skips: Sequence[SkipPath]) -> list[str]:
    """Inputs that lead to a fork without passing a parameter: only their gradients are computed, so that the first layer costs what it costs in training."""
    behind: dict[fx.Node, frozenset[str]] = {}
    trained: set[fx.Node] = set()
    for node in tape.graph.nodes:
        operands = node.all_input_nodes
        if node.meta.get("parameter") or any(a in trained for a in operands):
            trained.add(node)
        elif node.op == "placeholder":
            behind[node] = frozenset({node.meta["input"]})
        else:
            behind[node] = frozenset[str]().union(*(behind[a] for a in operands))
    return sorted({name for s in skips if s.fork not in trained for name in behind[s.fork]})


def _uncalled(tape: Tape, recorder: Recorder) -> list[Value]:
    called = {call.name for call in recorder.module_calls if call.values}
    return [tape.values[n] for nodes in parameter_users(tape, lambda owner: owner not in called).values() for n in nodes]


def leaves_fused_path(model: nn.Module, settings: Settings) -> bool:
    """Whether the model has a frozen encoder in eval mode: torch would fuse it, but not under hooks, and the two round differently."""
    fused = (m for m in model.modules() if isinstance(m, (nn.TransformerEncoderLayer, nn.MultiheadAttention)))
    return any((settings.evaluate or not m.training) and not any(p.requires_grad for p in m.parameters()) for m in fused)


def _batch_size(model: nn.Module, forward: Forward) -> int:
    """Length of the first input's leading dimension where an output has it too; else 1, for no batch dimension that is known to be one."""
    first = next((t for _, t in forward.inputs if t.dim() > 0), None)
    if first is None or (first.dim() < 2 and (first.is_floating_point() or first.is_complex())):
        return 1
    size = int(first.shape[0])
    kept = any(t.dim() > 0 and t.shape[0] == size for t in forward.outputs) or all(t.dim() == 0 for t in forward.outputs)
    return size if kept and not _counts_steps(model, forward, size) else 1


def _counts_steps(model: nn.Module, forward: Forward, size: int) -> bool:
    """Whether a leading dimension of this size may be time's: that of what a layer without `batch_first` returned, [steps, samples, features]."""
    timed = {name for name, m in model.named_modules() if isinstance(m, (nn.RNNBase, nn.MultiheadAttention)) and not m.batch_first}
    return any(call.name in timed and len(call.shape) == 3 and call.shape[0] == size for call in forward.recorder.module_calls)
