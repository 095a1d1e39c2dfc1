"""What is profiled: target, weights, batch and loss. Knows nothing of tapes or reports, and unpickles nothing but tensors."""

from __future__ import annotations

from gradflow.subject.arguments import parse_arguments
from gradflow.subject.batch import Batch, check_inputs, choose_batch, given_batch
from gradflow.subject.inputs import InputSpec
from gradflow.subject.loss import Objective, Roots, check_loss, choose_loss
from gradflow.subject.outputs import differentiable_outputs
from gradflow.subject.target import Loaded, load
from gradflow.subject.trace import user_traceback
from gradflow.subject.weights import check_weights

__all__ = [
    "Batch",
    "InputSpec",
    "Loaded",
    "Objective",
    "Roots",
    "check_inputs",
    "check_loss",
    "check_weights",
    "choose_batch",
    "choose_loss",
    "differentiable_outputs",
    "given_batch",
    "load",
    "parse_arguments",
    "user_traceback",
]
