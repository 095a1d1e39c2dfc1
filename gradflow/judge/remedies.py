"""The next step that fits what the model has, where a rule's own would not. Touches no tensor."""

from __future__ import annotations

from collections.abc import Sequence

from gradflow.operators import Role, role
from gradflow.records import Highway, Layer, Skip
from gradflow.rules import Rule

_OPEN = "Start the gate open: a bias of 3 or more on the carry (an LSTM's forget gate, a Highway network's transfer gate at -3), or an ungated skip around it."
_PLAIN = "Lower the initialisation gain (nn.init.kaiming_normal_ for ReLU, xavier_normal_ for tanh), or normalise after each layer."
_RESIDUAL = "Lower the initialisation gain, normalise, or scale the residual branches by 1/sqrt(number of blocks)."
_REPEATED = "Give what is called again and again a gain of 1 (nn.init.orthogonal_ for a recurrent matrix), or use a gated cell (LSTM, GRU)."
WHILE_NORMED = "Nothing, while the norms stay on the trunk; where they go, set λ = 1."
_SHUT = 0.95  # a gate that passes on less is not open


def of_exploding(layer: Layer, skips: Sequence[Skip]) -> str:
    """For a gradient that grows: advice on residual branches is for models that have some."""
    if any(skip.form == "add" for skip in skips):
        return _RESIDUAL
    return _REPEATED if layer.calls > 1 else _PLAIN


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
