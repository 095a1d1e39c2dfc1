"""The next step that fits what the model has, where a rule's own would not. Touches no tensor."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.bands import is_weighted
from gradflow.judge.places import Step
from gradflow.numbers import number
from gradflow.operators import Role, role
from gradflow.records import Highway, Layer, Parameter, Skip
from gradflow.rules import Rule

_OPEN = "Start the gate open: a bias of 3 or more on the carry (an LSTM's forget gate, a Highway network's transfer gate at -3), or an ungated skip around it."
_PLAIN = "Lower the initialisation gain (nn.init.kaiming_normal_ for ReLU, xavier_normal_ for tanh), or normalise after each layer."
_RESIDUAL = "Lower the initialisation gain, normalise, or scale the residual branches by 1/sqrt(number of blocks)."
_GAIN = "Use an initialisation of gain 1 (nn.init.kaiming_normal_ before a ReLU), a normalisation, or a skip connection around the layers after it."
_SKIPS = "Lead a skip connection around every two or three layers: where norms follow the layers, no initialisation mends it."
_REPEATED = "Give what is called again and again a gain of 1 (nn.init.orthogonal_ for a recurrent matrix), or use a gated cell (LSTM, GRU)."
ROUTED = "Nothing: the model routes the gradient past these skips by its architecture."
WHILE_NORMED = "Nothing, while the norms stay on the trunk; where they go, set λ = 1."
_DEAD = "Every input of this ReLU is negative: mend the bias or the learning rate that made it so, or use an activation that leaks (LeakyReLU, GELU)."
_SATURATED = "It is saturated: lower the initialisation before it, or normalise what it is given."
_STEPS = "A step has no gradient: pass it on with a straight-through estimator, x + (step(x) - x).detach()."
_CLIPPED = "Every value lies beyond its bounds: widen them, or normalise what it is given."
_SILENT = {
    **dict.fromkeys(("relu", "relu6", "threshold"), _DEAD),
    **dict.fromkeys(("sigmoid", "tanh", "softmax", "hardsigmoid", "softsign"), _SATURATED),
    **dict.fromkeys(("round", "sign", "floor", "ceil", "trunc", "argmax", "heaviside"), _STEPS),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh", "clip"), _CLIPPED),
}
_SHUT = 0.95  # a gate that passes on less is not open
_MOST = 0.5  # of the weighted layers: where so many have a norm after them their initialisation cancels
_SATURATING = frozenset({"Sigmoid", "Tanh", "Softsign", "LogSigmoid", "Hardsigmoid", "Hardtanh", "Softmax"})
_RECTIFIERS = frozenset({"ReLU", "LeakyReLU", "PReLU", "ReLU6", "ELU", "GELU", "SiLU", "Mish", "Softplus"})


def of_layers(rule: Rule, layers: Sequence[Layer], skips: Sequence[Skip]) -> str:
    """For a gradient that vanishes or explodes a little at each of `layers`, those from the worst to the output: advice on residual branches is for models that
    have some, on initialisation for those whose norms do not undo it, on activations for those that saturate."""
    weighted, types = sum(map(is_weighted, layers)), {layer.type for layer in layers}
    normed = sum("Norm" in layer.type for layer in layers) >= _MOST * weighted > 0
    if rule.below:
        return _GAIN if types & _RECTIFIERS and not types & _SATURATING and not normed else rule.fix
    if any(skip.form == "add" for skip in skips):
        return _RESIDUAL
    return _REPEATED if layers[0].calls > 1 else _SKIPS if normed else _PLAIN


def of_step(rule: Rule, step: Step) -> str:
    """For a gradient of which most is lost or gained at one layer: its weight, where that is of such a size, else what stands there."""
    weight = step.weight
    if step.at.calls > 1:
        return _REPEATED
    if weight is not None:
        return of_weight(weight, step.at)
    what = "a saturated activation, a small factor, a norm of what is large" if rule.below else "a large factor, a norm of what is small"
    return f"Look at what stands between {step.before.name} and {step.at.name}: {what}."


def of_weight(weight: Parameter, layer: Layer) -> str:
    """For a weight of the wrong size."""
    if layer.type == "Embedding":
        return f"Initialise {weight.name} at the size that the layers after it expect (nn.init.normal_, std from 0.02 to 1), or normalise what it gives."
    if len(weight.shape) < 2:
        return f"Start {weight.name} at 1, as norms do."
    return f"Give {weight.name} the initialisation of its fan-in (nn.init.kaiming_normal_ for ReLU, xavier_normal_ for tanh)."


def of_what_size(weight: tuple[Parameter, float], usual: float) -> str:
    """A weight's size against the median matrix's, both ‖W‖_F/√outputs."""
    ratio = weight[1] / usual
    apart = f"{number(ratio, 3)} times larger" if ratio > 1 else f"{number(1 / ratio, 3)} times smaller"
    return f"{weight[0].name} is {apart} than the median matrix of the model (‖W‖/√outputs {number(weight[1], 3)}, not {number(usual, 3)})"


def of_silence(rule: Rule, cause: str) -> str:
    """For a gradient of exactly 0, by the type of the layer or the operator that passes none on."""
    return _SILENT.get(cause.lower().rstrip("_"), rule.fix)


def of_skip(rule: Rule, skip: Skip) -> str:
    """For a skip whose λ is not 1: a gate is to be opened, a function to be taken off the path."""
    functions = pointwise(skip)
    if functions:
        return f"Take {', '.join(functions)} off the skip: add its input as it is, and apply {', '.join(functions)} inside the branch."
    return _OPEN if skip.kind == "gated" and rule.below else rule.fix


def of_highway(rule: Rule, highway: Highway, skips: Sequence[Skip]) -> str:
    """For a highway that its skips starve: that of the skips where all that attenuate are gates, or pass through the same functions."""
    on = {*highway.skips}
    found = {of_skip(rule, s) for s in skips if s.id in on and (s.lam is None or abs(s.lam) < _SHUT)} if rule.below else set()
    return found.pop() if len(found) == 1 and not highway.trunk_ops else rule.fix


def pointwise(skip: Skip) -> list[str]:
    """The functions that a skip of kind `gated` passes through itself (tanh, relu); empty where nothing but a gate's value multiplies it."""
    return [op for op in skip.path_ops if role(op) is Role.ACTIVATION] if skip.kind == "gated" else []
