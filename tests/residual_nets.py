"""Every residual network of the zoo, small and in float64, and what plain autograd says about it. Shared by the tests of the core."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor, nn

import gradflow
from gradflow import zoo
from gradflow.records import Report

SEED = 3
IMAGE = (2, 3, 8, 8)


def _convolutional() -> Iterator[tuple[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]]:
    for name, option in product(("preact", "postact"), ("A", "B")):
        build = getattr(zoo, f"{name}_resnet")
        for shortcut in ("identity", "scaled", "exclusive_gating", "shortcut_only_gating", "conv1x1", "dropout"):
            given = {"shortcut": shortcut, "option": option, "scale": 0.7 if shortcut == "scaled" else 1.0, "gate_bias": -1.0, "gate_weights": "he"}
            yield f"{name} {shortcut} {option}", (lambda build=build, given=given: build(14, stages=(4, 6), classes=3, **given), IMAGE)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **dict(_convolutional()),
    "preact without norm": (lambda: zoo.preact_resnet(10, norm=False, stages=(4,), branch_scale=0.5), IMAGE),
    "residual mlp": (lambda: zoo.residual_mlp(4, 8, scale=0.9, branch_layers=2), (4, 8)),
    "residual mlp with a stem": (lambda: zoo.residual_mlp(3, 8, inputs=5, norm="layer"), (4, 5)),
    "highway net": (lambda: zoo.highway_net(4, 8, transfer_bias=-1.0), (4, 8)),
    "highway net with a stem": (lambda: zoo.highway_net(3, 8, inputs=5), (4, 5)),
    "pre-LN": (lambda: zoo.pre_ln_transformer(3, 8, heads=2), (2, 5, 8)),
    "pre-LN scaled": (lambda: zoo.pre_ln_transformer(2, 8, heads=2, skip_scale=0.5, causal=True), (2, 5, 8)),
    "post-LN": (lambda: zoo.post_ln_transformer(3, 8, heads=2), (2, 5, 8)),
    "post-LN scaled": (lambda: zoo.post_ln_transformer(2, 8, heads=2, skip_scale=1.5), (2, 5, 8)),
    "deepnorm": (lambda: zoo.deepnorm_transformer(3, 8, heads=2), (2, 5, 8)),
    "two blocks": (lambda: zoo.two_block_net(8), (4, 8)),
    "cancelling": (lambda: zoo.cancelling_net(0.5, blocks=3), (4, 8)),
    "alternating": (lambda: zoo.matrix_skip_net("alternating", 4, 8), (4, 8)),
    "orthogonal": (lambda: zoo.matrix_skip_net("orthogonal", 4, 8), (4, 8)),
    "rezero": (lambda: zoo.rezero_net(3, 8), (4, 8)),
    "fixup": (lambda: zoo.fixup_net(3, 4), IMAGE),
}


@contextmanager
def float64(seed: int = 0) -> Iterator[None]:
    """Build in float64 from a fixed seed; the generator and the default dtype are put back."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_default_dtype(dtype)


def built(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in float64, a batch for it, and a cotangent on its output."""
    with float64(seed):
        model = make()
        x = torch.randn(shape)
        modes = {m: m.training for m in model.modules()}
        cotangent = torch.randn_like(model.eval()(x))
        for module, training in modes.items():
            module.training = training
    return model, x, cotangent.detach()


def inner_product(output: Tensor, targets: Tensor) -> Tensor:
    """The loss whose gradient at the output is `targets`."""
    return (output * targets).sum()


def profiled(model: nn.Module, x: Tensor, cotangent: Tensor) -> Report:
    """The report under the loss whose gradient at the output is `cotangent`."""
    return gradflow.profile(model, x, cotangent, inner_product, seed=SEED)


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Gradients by plain autograd: at every unit's input, and at the last join (before the ReLU or the norm that follows it)."""

    forks: list[Tensor]
    joins: list[Tensor]
    output: Tensor


def trunk_gradients(model: nn.Module, x: Tensor, cotangent: Tensor, seed: int = SEED) -> Trunk:
    """Run the units of `model.blocks` one after another, as the model does; `joins[i]` is the gradient at unit i's sum."""
    forks: list[Tensor] = []
    edges: list[object] = []

    def enter(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        forks.append(args[0])

    def leave(module: nn.Module, args: object, output: Tensor) -> None:
        node, nr = output.grad_fn, output.output_nr
        if node.name().startswith(("Relu", "NativeLayerNorm")):
            node, nr = node.next_functions[0]
        edges.append(torch.autograd.graph.GradientEdge(node, nr))

    handles = [h for unit in model.blocks for h in (unit.register_forward_pre_hook(enter), unit.register_forward_hook(leave))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = model(x.clone().requires_grad_())
    for handle in handles:
        handle.remove()
    grads = torch.autograd.grad(inner_product(output, cotangent), [*forks, *edges], allow_unused=True)
    zeros = [torch.zeros(()) if g is None else g for g in grads]
    return Trunk(forks=zeros[: len(forks)], joins=zeros[len(forks) :], output=output)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of `NETS`, profiled once for all tests."""

    model: nn.Module
    x: Tensor
    cotangent: Tensor
    report: Report
    whole: Trunk
    cut: Trunk


@cache
def subject(name: str) -> Subject:
    """A net by its name, with its report and its gradients by plain autograd, whole and with the branches cut."""
    model, x, cotangent = built(*NETS[name])
    with zoo.cut_branches(model):
        cut = trunk_gradients(model, x, cotangent)
    whole = trunk_gradients(model, x, cotangent)
    return Subject(model=model, x=x, cotangent=cotangent, report=profiled(model, x, cotangent), whole=whole, cut=cut)
