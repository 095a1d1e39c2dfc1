"""The networks on vectors: plain, residual, highway, closed, exact, and with streams."""

import math

import pytest
import torch
from torch.nn import functional

from gradflow import zoo
from gradflow.zoo.choices import ACTIVATIONS, INITS, NORMS


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_of_any_choice(activation, norm):
    """mlp maps [batch, inputs] to [batch, outputs] through `depth` hidden layers; residual_mlp does so too."""
    plain = zoo.mlp(3, 8, activation=activation, norm=norm, inputs=5, outputs=2)
    residual = zoo.residual_mlp(3, 8, activation=activation, norm=norm, inputs=5, outputs=2)
    assert sum(isinstance(module, torch.nn.Linear) for module in plain) == 4
    for model in (plain, residual):
        output = model(torch.randn(6, 5))
        assert output.shape == (6, 2)
        output.sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("init", "deviation"), [("default", 1 / 3), ("he", math.sqrt(2)), ("xavier", 1), ("lecun", 1), ("small", 0.16), ("large", 4), ("orthogonal", 1)]
)
def test_an_initialisation_has_its_spread(init, deviation):
    """√fan_in · σ of each rule, on square maps of width 256; torch's default is uniform with 1/√3."""
    weight = zoo.mlp(1, 256, init=init)[0].weight
    expected = 3**-0.5 if init == "default" else deviation
    assert (weight.std() * 16).item() == pytest.approx(expected, rel=0.02)


def test_every_initialisation_builds():
    """The table and the builder agree."""
    for init in INITS:
        zoo.mlp(1, 4, init=init)(torch.randn(2, 4))


def test_lambda_to_the_depth(gains):
    """residual_mlp: the highway is exactly λ^depth g."""
    trunk = gains(zoo.residual_mlp(54, 8, scale=0.9, branch_layers=2).blocks, torch.randn(2, 8))
    assert torch.allclose(trunk.highway, 0.9**54 * trunk.g, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("depth", "branch_scale", "expected", "tolerance"), [(8, 1.0, 16, 1), (32, 32**-0.5, 1.636, 0.03)])
def test_growth_without_norm(gains, depth, branch_scale, expected, tolerance):
    """He-initialised and un-normalised, the total gain² grows as (1 + c²)^depth: 16 in norm for depth 8, 1.636 for branches × 1/√32."""
    totals = []
    for seed in range(8):
        torch.manual_seed(seed)
        model = zoo.residual_mlp(depth, 256, branch_scale=branch_scale, outputs=None)
        totals.append(gains(model, torch.randn(64, 256)).total_gain)
    assert sum(totals) / 8 == pytest.approx(expected, abs=tolerance)


def test_growth_with_batch_norm():
    """A BN-ReLU MLP of width 256 grows the gradient by √(π/(π−1)) = 1.211 a layer."""
    rates = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = zoo.mlp(16, 256, norm="batch", init="he", outputs=256)
        x = model[:6](torch.randn(128, 256)).detach().requires_grad_()
        y = model[6:48](x)
        cotangent = torch.randn_like(y)
        rates.append((torch.autograd.grad(y, x, cotangent)[0].norm() / cotangent.norm()).item() ** (1 / 14))
    assert sum(rates) / 3 == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), abs=0.015)


@pytest.mark.parametrize(("depth", "cosine"), [(1, 0.5), (2, 0.3016), (4, 0.1416)])
def test_gradients_shatter(depth, cosine):
    """Balduzzi et al. 2017: the input gradients of two orthogonal inputs of a plain He-initialised ReLU MLP decorrelate with depth."""
    cosines = []
    for seed in range(12):
        torch.manual_seed(seed)
        x = torch.eye(2, 512).requires_grad_()
        (g,) = torch.autograd.grad(zoo.mlp(depth, 512, init="he", bias=False, outputs=1)(x * 512**0.5).sum(), x)
        cosines.append(torch.cosine_similarity(g[0], g[1], 0).item())
    assert sum(cosines) / 12 == pytest.approx(cosine, abs=0.05)


@pytest.mark.parametrize("bias", [-2.0, 0.0, 3.0])
def test_a_highway_with_zero_gate_weights(gains, bias):
    """Srivastava et al. 2015: the carry is 1 − σ(b), and the highway its power."""
    trunk = gains(zoo.highway_net(20, 8, transfer_bias=bias, gate_weights="zero").blocks, torch.randn(2, 8))
    carry = 1 - 1 / (1 + math.exp(-bias))
    assert torch.allclose(trunk.highway, carry**20 * trunk.g, rtol=1e-12, atol=0)


def test_a_highway_unit_computes_its_formula():
    """T·H + (1 − T)·x, with T drawn weights."""
    unit = zoo.highway_net(1, 8).blocks[0]
    x = torch.randn(3, 8)
    t = torch.sigmoid(unit.gate(x))
    assert torch.allclose(unit(x), t * torch.relu(unit.transform[0](x)) + (1 - t) * x, rtol=1e-14)


@pytest.mark.parametrize("c", [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_a_branch_that_works_against_its_skip(gains, c):
    """F = −c·x: the total gain of a block is |1 − c| while its highway is 1."""
    trunk = gains(zoo.cancelling_net(c, blocks=3), torch.randn(4, 8))
    assert torch.equal(trunk.highway, trunk.g)
    assert trunk.total_gain == pytest.approx(abs(1 - c) ** 3, rel=1e-14)


@pytest.mark.parametrize("kind", ["alternating", "orthogonal"])
def test_matrix_skips(gains, kind):
    """The highway's gain is 1 over 54 matrix skips; alternating diagonals give g itself back, to the last bit."""
    trunk = gains(zoo.matrix_skip_net(kind), torch.randn(4, 64))
    assert trunk.highway_gain == pytest.approx(1, rel=1e-12)
    assert torch.equal(trunk.highway, trunk.g) == (kind == "alternating")


def test_alternating_skips_are_not_what_their_scalars_say():
    """Each diagonal skip's own λ is about 1.25, so a product of 54 of them would claim 1.7e5 where the highway is 1."""
    g = torch.randn(256, 64)
    unit = zoo.matrix_skip_net().blocks[0]
    lam = ((g * unit.diagonal) * g).sum() / g.square().sum()
    assert lam.item() == pytest.approx(1.25, abs=0.05)


def test_rezero_at_the_start(gains):
    """ReZero passes the gradient untouched and gives exactly none to the weights of its branches, while each α gets one."""
    model = zoo.rezero_net(6, 16)
    trunk = gains(model.blocks, torch.randn(4, 16))
    assert torch.equal(trunk.total, trunk.g)
    functional.cross_entropy(model(torch.randn(4, 16)), torch.arange(4)).backward()
    for unit in model.blocks:
        assert unit.alpha.grad != 0
        assert all(not p.grad.any() for p in unit.branch.parameters())


def test_fixup_at_the_start(gains):
    """Fixup passes the gradient untouched and gives exactly none to the first convolution of a unit, while the zero one gets one."""
    model = zoo.fixup_net(4, 8)
    trunk = gains(model.blocks, torch.randn(4, 8, 6, 6))
    assert torch.equal(trunk.total, trunk.g)
    functional.cross_entropy(model(torch.randn(4, 3, 6, 6)), torch.arange(4)).backward()
    for unit in model.blocks:
        assert not unit.first.weight.grad.any()
        assert unit.second.weight.grad.any()


def test_fixup_scales_by_the_number_of_units():
    """The first convolution is He's times L^(−1/2)."""
    weight = zoo.fixup_net(16, 32).blocks[0].first.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)) / 4, rel=0.05)


def test_a_fixup_head_of_zero_stops_the_first_gradient():
    """With the paper's zero classifier the logits are 0 and the trunk gets no gradient in the first step."""
    model = zoo.fixup_net(2, 4, zero_head=True)
    logits = model(torch.randn(2, 3, 4, 4))
    functional.cross_entropy(logits, torch.arange(2)).backward()
    assert not logits.any()
    assert not model.stem.weight.grad.any()
    assert model.head.weight.grad.any()


def test_the_two_block_net_by_hand():
    """Every ∂L/∂x_i of the two-block post-activation net equals the chain derived by hand, with masks, each branch counted once."""
    model = zoo.two_block_net(8)
    (f1, f2), (f3, f4) = [(unit.first.weight, unit.second.weight) for unit in model.blocks]
    x1, labels = torch.randn(5, 8, requires_grad=True), torch.arange(5)
    x2 = (x1 @ f1.T).relu()
    x3 = (x2 @ f2.T + x1).relu()
    x4 = (x3 @ f3.T).relu()
    x5 = (x4 @ f4.T + x3).relu()
    assert torch.allclose(model(x1), x5, rtol=1e-14)
    d5 = (x5.softmax(1) - functional.one_hot(labels, 8)) / 5
    join5 = d5 * (x5 > 0)
    d4 = join5 @ f4
    d3 = join5 + (d4 * (x4 > 0)) @ f3
    join3 = d3 * (x3 > 0)
    d2 = join3 @ f2
    d1 = join3 + (d2 * (x2 > 0)) @ f1
    computed = torch.autograd.grad(functional.cross_entropy(x5, labels), (x1, x2, x3, x4, x5))
    (from_model,) = torch.autograd.grad(functional.cross_entropy(model(x1), labels), x1)
    for expected, gradient in zip((d1, d2, d3, d4, d5, d1), (*computed, from_model), strict=True):
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)


def test_identity_mixing_of_streams(gains):
    """Hyper-connections that start at H = I carry each stream's gradient untouched."""
    trunk = gains(zoo.hyper_connection_net(5, 8).blocks, torch.randn(3, 4, 8))
    assert torch.equal(trunk.highway, trunk.g)


@pytest.mark.parametrize("mixing", ["random", "doubly_stochastic"])
def test_other_mixings_of_streams(gains, mixing):
    """The highway is the product of the mixing matrices, transposed; doubly stochastic ones have rows and columns that sum to 1."""
    model = zoo.hyper_connection_net(5, 8, mixing=mixing, spread=0.5)
    trunk = gains(model.blocks, torch.randn(3, 4, 8))
    product = torch.eye(4)
    for unit in model.blocks:
        product = unit.mix @ product
        if mixing == "doubly_stochastic":
            assert torch.allclose(unit.mix.sum(0), torch.ones(4))
            assert torch.allclose(unit.mix.sum(1), torch.ones(4))
            assert (unit.mix >= 0).all()
    assert torch.allclose(trunk.highway, product.T @ trunk.g, rtol=1e-12)
    assert model(torch.randn(3, 8)).shape == (3, 10)


@pytest.mark.parametrize(
    ("build", "wrong", "message"),
    [
        (zoo.mlp, {"activation": "rellu"}, "'relu'"),
        (zoo.mlp, {"init": "hee"}, "'he'"),
        (zoo.mlp, {"norm": "group"}, "'layer'"),
        (zoo.mlp, {"depth": 0}, "depth=0 must be an integer of at least 1"),
        (zoo.mlp, {"width": True}, "width=True"),
        (zoo.residual_mlp, {"branch_layers": 0}, "branch_layers=0"),
        (zoo.residual_mlp, {"activation": "x"}, "'relu'"),
        (zoo.residual_mlp, {"norm": "x"}, "'batch'"),
        (zoo.highway_net, {"gate_weights": "x"}, "'zero', 'he'"),
        (zoo.highway_net, {"inputs": 0}, "inputs=0"),
        (zoo.rezero_net, {"blocks": -1}, "blocks=-1"),
        (zoo.fixup_net, {"width": "8"}, "width='8'"),
        (zoo.two_block_net, {"width": 0}, "width=0"),
        (zoo.cancelling_net, {"blocks": 0}, "blocks=0"),
        (zoo.matrix_skip_net, {"kind": "x"}, "'alternating', 'orthogonal'"),
        (zoo.matrix_skip_net, {"blocks": 3}, "must be even"),
        (zoo.hyper_connection_net, {"mixing": "x"}, "'identity', 'random', 'doubly_stochastic'"),
        (zoo.hyper_connection_net, {"mixing": "doubly_stochastic", "spread": 2.0}, "\\[0, 1\\]"),
    ],
)
def test_a_wrong_argument_is_refused(build, wrong, message):
    """The error names the argument and what it may be."""
    with pytest.raises(ValueError, match=message):
        build(**wrong)
