"""What every way in is held to: the plain run's loss and gradients bit for bit, every layer measured or explained, skips as derived, a closed ledger, a model
left as it was."""

import random
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import gradflow
from gradflow.subject import choose_loss, given_batch, load
from gradflow.subject.seeding import seed_everything
from gradflow.subject.structure import replaced

SEED = 3
WIDTH = 8
ROWS = 4
D = torch.float64
AMP = {None: nullcontext, "bf16": lambda: torch.autocast("cpu", torch.bfloat16), "fp16": lambda: torch.autocast("cpu", torch.float16)}


def example(target, **arguments):
    """A builder of docs/examples/ways_in, in float64."""

    def build():
        return load(f"docs/examples/ways_in/{target}", arguments=arguments).model.double()

    return build


def rows(seed=0, *shape):
    """N(0, 1) in float64, [4, 8] if no shape is given."""
    return torch.randn(shape or (ROWS, WIDTH), dtype=D, generator=torch.Generator().manual_seed(seed))


def linear(inputs=WIDTH, outputs=WIDTH):
    return nn.Linear(inputs, outputs, dtype=D)


class Half(nn.Module):
    """x/2 + tanh(f(x)): a skip with λ = 0.5 that bypasses one layer."""

    def __init__(self):
        super().__init__()
        self.f = linear()

    def forward(self, x):
        return 0.5 * x + torch.tanh(self.f(x))


class Net(nn.Module):
    """stem → x/2 + branch(x) → head; `branch` is a function of f(x) or, where `whole` is given, `whole(x, f(x))` is the block."""

    def __init__(self, branch=torch.tanh, *, whole=None, f=linear):
        super().__init__()
        self.stem, self.f, self.head = linear(), f(), linear()
        self._branch, self._whole = branch, whole

    def forward(self, x):
        x = self.stem(x)
        y = self.f(x)
        return self.head(self._whole(x, y) if self._whole else 0.5 * x + self._branch(y))


def numbers(tensor):
    """The bits that a tensor of any kind holds, its shape and its type."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.coalesce()
        held = (tensor.indices(), tensor.values())
    elif tensor.layout is torch.sparse_csr:
        held = (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    else:
        held = (getattr(tensor, "content", tensor),)
    plain = (t.resolve_conj().contiguous().reshape(-1).as_subclass(torch.Tensor) for t in held)
    return type(tensor).__name__, tensor.dtype, tuple(tensor.shape), *(t.view(torch.uint8).numpy().tobytes() for t in plain)


def state(model):
    """Everything of a model, and of the process, that must not change."""
    kind, keys, *rest = np.random.get_state()
    return {
        "parameters": {n: (id(p), numbers(p), p.requires_grad, numbers(p.grad)) for n, p in model.named_parameters(remove_duplicate=False)},
        "buffers": {n: (id(b), numbers(b)) for n, b in model.named_buffers(remove_duplicate=False)},
        "modes": {n: m.training for n, m in model.named_modules()},
        "hooks": {n: (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for n, m in model.named_modules()},
        "attributes": {n: {k: id(v) for k, v in m.__dict__.items()} for n, m in model.named_modules()},
        "random": (random.getstate(), (kind, keys.tobytes(), *rest), torch.get_rng_state().numpy().tobytes()),
        "flags": (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_default_dtype()),
    }


@dataclass
class Plain:
    """A run without gradflow: the loss and the gradients by name."""

    loss: float
    gradients: dict


def plain_run(model, inputs, targets=None, loss=None, amp=None):
    batch = given_batch(inputs)
    objective = choose_loss(loss=loss, targets=targets, model=model, seed=SEED)
    seed_everything(SEED)
    args, kwargs = replaced((batch.args, dict(batch.kwargs)), lambda t: t.clone() if t.is_inference() else t.detach().clone())
    with AMP[amp]():
        roots = objective(model(*args, **kwargs))
    starts = [torch.ones_like(t) if c is None else c.to(t.dtype) for t, c in zip(roots.tensors, roots.cotangents, strict=True)]
    torch.autograd.backward(list(roots.tensors), starts)
    return Plain(loss=float(roots.value.double()), gradients={n: numbers(p.grad) for n, p in model.named_parameters() if p.grad is not None})


def built(build):
    torch.manual_seed(0)
    return build()


def check(build, inputs, *, skips=None, unmeasured=(), targets=None, loss=None, amp=None, ledger=1e-9, silent=()):
    """Profile a model and hold it to the oracle; returns the report.

    Args:
        build: builds the model; called twice under one seed.
        skips: (kind, λ) of each row in order; λ is None where it is not defined. A gain is |λ| where λ is.
        unmeasured: names of the layers that no gradient reaches.
        ledger: the largest error that is rounding.
        silent: parameters whose gradient a plain run has from elsewhere than the loss.
    """
    plain = plain_run(built(build), inputs, targets, loss, amp)
    model, seen = built(build), {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad, name=name: seen.__setitem__(name, numbers(grad.clone())))
    before = state(model)
    report = gradflow.profile(model, inputs, targets=targets, loss=loss, seed=SEED, amp=amp)
    after = state(model)
    assert {key: after[key] for key in after if after[key] != before[key]} == {}
    assert report.run.loss.value == plain.loss
    expected = {n: g for n, g in plain.gradients.items() if n not in silent}
    if amp != "fp16":  # there gradients are measured under a loss scale
        assert set(seen) >= set(expected)
        assert {n: seen[n] for n in expected} == expected
    _check_layers(report, model, expected, unmeasured)
    assert max((skip.ledger_error for skip in report.skips), default=0) < ledger
    if skips is not None:
        assert [skip.kind for skip in report.skips] == [kind for kind, _ in skips]
        for skip, (_, lam) in zip(report.skips, skips, strict=True):
            assert skip.lam == (lam if lam is None else pytest.approx(lam, rel=max(ledger, 1e-12)))
    return report


def _check_layers(report, model, expected, unmeasured):
    """Every parameter is in the report, measured if a plain run has its gradient; every layer is measured but for those named."""
    status = {p.name: p.status for layer in report.layers for p in layer.parameters}
    assert set(status) == {n for n, _ in model.named_parameters()}
    assert {n for n, s in status.items() if s == "measured"} == set(expected)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {n for n, s in status.items() if s == "frozen"}
    assert {layer.name for layer in report.layers if layer.grad_norm is None} == set(unmeasured)
    assert all(layer.undefined["grad_norm"] for layer in report.layers if layer.grad_norm is None)
