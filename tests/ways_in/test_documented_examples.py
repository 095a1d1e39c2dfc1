"""Each model of docs/examples/ways_in against a plain run, in float64: the table's rows are true of the numbers, too."""

import pytest
import torch
from ways_oracle import check, example, rows

from gradflow.subject import load

TWO = [("identity", 1.0)] * 2
SEQUENCE, IMAGES = rows(1, 4, 16, 8), rows(1, 4, 3, 6, 6)
IDS = torch.randint(50, (4, 6), generator=torch.Generator().manual_seed(0))
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])
NODES = (rows(1, 6, 8), EDGES)
CASES = {
    "several_inputs.py:Several": ({}, (rows(1), rows(2)), TWO),
    "several_inputs.py:KeywordOnly": ({}, {"x": rows(1), "context": rows(2)}, TWO),
    "nested_inputs.py:Nested": ({}, ({"x": rows(1), "more": [rows(2)]},), TWO),
    "several_inputs.py:Tokens": ({}, IDS, TWO),
    "outputs.py:TwoHeads": ({}, rows(), TWO),
    "outputs.py:Dictionary": ({}, rows(), TWO),
    "outputs.py:Dataclass": ({}, rows(), TWO),
    "outputs.py:NamedTuple": ({}, rows(), TWO),
    "outputs.py:NestedTuple": ({}, rows(), TWO),
    "outputs.py:Distribution": ({}, rows(), TWO),
    "outputs.py:OwnLoss": ({}, rows(), TWO),
    "parameters.py:Frozen": ({}, rows(), TWO),
    "parameters.py:Shared": ({}, IDS, TWO[:1]),
    "parameters.py:Raw": ({}, rows(), [("scaled", 1.0)] * 2),
    "parameters.py:parametrized weight_norm": ({"by": "weight_norm"}, rows(), TWO),
    "parameters.py:parametrized spectral_norm": ({"by": "spectral_norm"}, rows(), TWO),
    "parameters.py:parametrized orthogonal": ({"by": "orthogonal"}, rows(), TWO),
    "checkpoints.py:Checkpointed": ({}, rows(), TWO),
    "checkpoints.py:Sequential": ({}, rows(), TWO),
    "checkpoints.py:Selective": ({}, rows(), TWO),
    "functions.py:on_branch": ({}, rows(), TWO),
    "functions.py:on_skip": ({}, rows(), [("gated", 1 / 3)] * 2),
    "attention.py:Attention": ({}, SEQUENCE, TWO[:1]),
    "attention.py:Attention weights": ({"need_weights": True}, SEQUENCE, TWO[:1]),
    "attention.py:ByHand": ({}, SEQUENCE, TWO[:1]),
    "attention.py:transformer": ({}, (SEQUENCE, rows(2, 4, 16, 8)), [("identity", 1.0)] * 5),
    "attention.py:encoder": ({}, SEQUENCE, TWO * 2),
    "attention.py:decoder": ({}, (SEQUENCE, rows(2, 4, 16, 8)), TWO * 3),
    "derivatives.py:Adapted": ({}, rows(), None),
    "precision.py:channels_last": ({}, IMAGES.to(memory_format=torch.channels_last), TWO[:1]),
    "writes.py:whole": ({}, rows(), TWO),
    "writes.py:slices": ({}, rows(), TWO),
    "writes.py:filled": ({}, rows(), [("pooled", None)] * 2),
    "message_passing.py:Scattered": ({}, NODES, TWO),
    "message_passing.py:Sparse": ({}, NODES, TWO),
    "subclasses.py:OnLabelled": ({}, rows(), TWO),
    "subclasses.py:Ragged": ({}, rows(1, 8, 8), TWO),
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_a_documented_way_in(name, case):
    """Loss and gradients are a plain run's, every layer and parameter is measured, λ is the closed form, the ledger closes and the model is unchanged."""
    arguments, inputs, skips = case
    check(example(name.split()[0], **arguments), inputs, skips=skips)


def test_one_block_called_three_times():
    """One row of three calls, and one layer of three."""
    report = check(example("parameters.py:Repeated"), rows(), skips=[("identity", 1.0)])
    assert (report.skips[0].calls, [layer.calls for layer in report.layers if layer.name == "blocks.f"]) == (3, [3])


@pytest.mark.parametrize("kind", ["GCNConv", "GATConv", "GATv2Conv", "SAGEConv", "TransformerConv"])
def test_graph_convolutions(kind):
    """torch_geometric's layers: what comes along the edges is the branch."""
    pytest.importorskip("torch_geometric")
    check(example("message_passing.py:Convolved", kind=kind), NODES, skips=TWO)


def test_an_energy_and_its_forces():
    """Differentiated twice: both skips are seen in the energy's forward, and once more in the derivative that autograd.grad builds on the tape."""
    report = check(example("derivatives.py:Potential"), rows())
    assert [(skip.kind, skip.lam) for skip in report.skips[:2]] == TWO


def test_forces_by_torch_func():
    """Inside vmap and grad a module's output is a wrapper; the tape's own tensor is behind it. The head is linear: its bias has no part in a slope."""
    check(example("derivatives.py:Forces"), rows(), unmeasured={"head"})


def widened(target):
    """The example with complex parameters of 64 bits each way, too."""

    def build():
        model = example(target)()
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.complex128 if parameter.is_complex() else torch.float64)
        return model

    return build


def test_complex_weights():
    """Multiplying by 0.8 + 0.6i turns the gradient: λ is the real part, and the gain is 1."""
    report = check(widened("precision.py:Complex"), rows().to(torch.complex128), skips=[("scaled", 0.8)])
    assert report.skips[0].gain == pytest.approx(1, rel=1e-12)
    assert report.skips[0].misfit == pytest.approx(0.6, rel=1e-12)


def test_complex_weights_between_transforms():
    """A Fourier layer: real data, complex weights."""
    check(widened("precision.py:Fourier"), SEQUENCE, skips=TWO[:1])


def test_weights_of_a_wrapper_type():
    """Gradients of a type that forwards every operator by __torch_dispatch__ are read, and never taken for one another's memory."""
    check(lambda: load("docs/examples/ways_in/subclasses.py:wrapped_weights").model, rows().float(), skips=TWO, ledger=1e-6)


def test_autocast_inside_the_forward():
    """The join is in bfloat16 though the parameters are not: its ledger is held to that format's rounding, and no hook is blamed."""
    report = check(lambda: load("docs/examples/ways_in/precision.py:OwnAutocast").model, rows().float(), skips=TWO, ledger=5e-2)
    assert report.run.notes == ()


def test_a_transformer_under_its_own_switch():
    """transformers' gradient_checkpointing_enable: the blocks' skips are seen one by one."""
    pytest.importorskip("transformers")
    report = check(example("checkpoints.py:transformer"), {"input_ids": IDS, "labels": IDS}, skips=TWO * 2)
    assert report.highways[0].skips == tuple(skip.id for skip in report.skips)
