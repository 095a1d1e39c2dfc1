"""Random residual networks with frozen, unused and cut parts: nothing is passed over in silence."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gradflow.profiling import profile
from gradflow.records import Layer, Parameter

from .networks import Network, Plan, loss, random_networks


class _Flawed(nn.Module):
    """A network beside a layer that is never called, one whose output is dropped, and one behind a detach()."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.network = Network(plan)
        self.uncalled, self.dropped, self.cut = (nn.Linear(plan.width, plan.width).double() for _ in range(3))
        self.inputs = self.network.inputs

    def forward(self, x: Tensor, *sides: Tensor) -> Tensor:
        self.dropped(x)
        return self.network(x, *sides) + self.cut(x).detach()


_UNREACHED = {"uncalled": "not called", "dropped": "does not lead to the loss", "cut": "detach() at"}


@given(random_networks(), st.data())
def test_frozen_unused_and_cut_parts(plan: Plan, data: st.DataObject) -> None:
    """Every layer and parameter is listed once, and is measured, frozen, or unreached with the reason."""
    model = _Flawed(plan)
    parameters = dict(model.named_parameters())
    frozen = data.draw(st.sets(st.sampled_from(sorted(n for n in parameters if n.startswith("network.") and not n.startswith("network.head")))), label="frozen")
    for name in frozen:
        parameters[name].requires_grad_(False)
    report = profile(model, model.inputs(), loss=loss)
    listed = [p for layer in report.layers for p in layer.parameters]
    assert sorted(p.name for p in listed) == sorted(parameters)
    for parameter in listed:
        _check_parameter(parameter, frozen)
    owners = {n.rpartition(".")[0] for n in parameters}
    names = [layer.name for layer in report.layers]
    assert len(names) == len(set(names)) and owners <= set(names)
    for layer in report.layers:
        _check_layer(layer, model)


def _check_parameter(parameter: Parameter, frozen: set[str]) -> None:
    owner = parameter.name.rpartition(".")[0]
    if parameter.name in frozen:
        assert parameter.status == "frozen" and "frozen" in parameter.undefined["grad_norm"]
    elif owner in _UNREACHED:
        assert parameter.status == "unreached" and _UNREACHED[owner] in parameter.undefined["grad_norm"], parameter
    else:
        assert parameter.status == "measured" and parameter.grad_norm is not None


def _check_layer(layer: Layer, model: nn.Module) -> None:
    if layer.grad_norm is None:
        assert layer.undefined["grad_norm"]
    else:
        assert layer.gain is not None
    if layer.name in _UNREACHED:
        assert layer.grad_norm is None
    trainable = any(p.requires_grad for p in model.get_submodule(layer.name).parameters(recurse=False)) if "(" not in layer.name else False
    if layer.name not in _UNREACHED and trainable:
        assert layer.grad_norm is not None, layer.undefined


@given(random_networks())
def test_norms_of_every_parameter(plan: Plan) -> None:
    """Each parameter's gradient norm is that of a plain backward pass."""
    network = Network(plan)
    loss(network(*network.inputs())).backward()
    norms = {name: float(p.grad.norm()) for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    report = profile(network, network.inputs(), loss=loss)
    for layer in report.layers:
        for parameter in layer.parameters:
            assert parameter.grad_norm == pytest.approx(norms[parameter.name], rel=1e-12), parameter.name
            assert parameter.weight_norm == pytest.approx(float(network.get_parameter(parameter.name).detach().norm()), rel=1e-12)


@given(random_networks())
def test_gradient_at_every_layers_output(plan: Plan) -> None:
    """Each layer's gradient is that of autograd at the layer's outputs, over all its calls, and its gain is relative to the model's output."""
    network = Network(plan)
    outputs: list[tuple[str, Tensor]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(lambda _m, _a, out, name=name: _keep(outputs, name, out))
    result = network(*network.inputs())
    grads = torch.autograd.grad(loss(result), [result, *(output for _, output in outputs)])
    truth: dict[str, list[Tensor]] = {}
    for (name, _), grad in zip(outputs, grads[1:], strict=True):
        truth.setdefault(name, []).append(grad)
    fresh = Network(plan)
    rows = {layer.name: layer for layer in profile(fresh, fresh.inputs(), loss=loss).layers}
    for name, called in truth.items():
        assert rows[name].calls == len(called), name
        norm = float(torch.stack(called).norm())
        assert rows[name].grad_norm == pytest.approx(norm, rel=1e-11), name
        assert rows[name].gain == pytest.approx(norm / float(grads[0].norm()), rel=1e-11), name


def _keep(outputs: list[tuple[str, Tensor]], name: str, out: Tensor) -> Tensor:
    """What the layer returned; the network goes on with a clone, into which it may write."""
    outputs.append((name, out))
    return out.clone()
