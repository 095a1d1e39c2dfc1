"""The transformers, and what their norms do to the highway."""

import pytest
import torch

from gradflow import zoo

BUILDERS = {"pre": zoo.pre_ln_transformer, "post": zoo.post_ln_transformer, "deep": zoo.deepnorm_transformer}
ALL = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


@ALL
def test_tokens_to_logits(build):
    """With a vocabulary, ids [batch, tokens] become logits [batch, tokens, vocab], and every parameter gets a gradient."""
    model = build(2, 16, vocab=11, context=6)
    logits = model(torch.randint(11, (3, 6)))
    assert logits.shape == (3, 6, 11)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@ALL
@pytest.mark.parametrize("shape", [(2, 5, 16), (5, 16)])
def test_states_to_states(build, shape):
    """Without one, [..., tokens, width] becomes the same, with or without a batch dimension."""
    assert build(2, 16)(torch.randn(shape)).shape == shape


@ALL
def test_a_causal_network_does_not_look_ahead(build):
    """causal=True: the output at a token has no gradient to those after it; without it, it has."""
    for causal in (True, False):
        x = torch.randn(2, 5, 16, requires_grad=True)
        (g,) = torch.autograd.grad(build(2, 16, causal=causal)(x)[:, 2].square().sum(), x)
        assert bool(g[:, 3:].any()) is not causal
        assert g[:, :3].any()


@ALL
def test_attention_free_has_one_unit_a_block(build):
    """attention=False leaves a feed-forward unit in each block, and tokens no longer see each other."""
    model = build(3, 16, attention=False)
    assert len(model.blocks) == 3
    assert len(build(3, 16).blocks) == 6
    x = torch.randn(2, 5, 16)
    assert torch.allclose(model(x)[:, :2], model(x[:, :2]), rtol=1e-12)


@pytest.mark.parametrize(("kind", "expected", "tolerance"), [("post", 0.039, 0.004), ("pre", 0.333, 0.01)])
def test_where_the_norm_stands(gains, kind, expected, tolerance):
    """Attention-free, d = 256, N = 16, 10 seeds: highway (2/3)^8 = 0.039 post-LN and 1/√9 = 0.333 pre-LN, output to input; the total stays at 1."""
    runs = []
    for seed in range(10):
        torch.manual_seed(seed)
        run = gains(BUILDERS[kind](16, 256, attention=False), torch.randn(64, 256))
        runs.append((run.highway_gain, run.total_gain))
    highway, total = torch.tensor(runs).mean(0).tolist()
    assert highway == pytest.approx(expected, abs=tolerance)
    assert total == pytest.approx(1, abs=0.1)


def test_pre_ln_with_a_scaled_skip(gains):
    """24 pre-LN blocks with λ = 0.5: the trunk's highway over the 48 skips is 0.5^48 exactly, though the total gradient is of order 1."""
    model = zoo.pre_ln_transformer(24, 32, causal=True, skip_scale=0.5)
    trunk = gains(model.blocks, torch.randn(2, 8, 32))
    assert torch.equal(trunk.highway, 0.5**48 * trunk.g)
    assert 0.01 < gains(model, torch.randn(2, 8, 32)).total_gain < 100


def test_deepnorm_keeps_the_highway_that_post_ln_loses(gains):
    """N = 32: DeepNorm's α = 2.828 holds the highway at 0.99 and the total near 1; a plain post-LN stack is left with about 1e-7."""
    x = torch.randn(4, 16, 64)
    deep = gains(zoo.deepnorm_transformer(32), x)
    plain = gains(zoo.post_ln_transformer(32), x)
    assert deep.highway_gain == pytest.approx(0.99, abs=0.025)
    assert deep.total_gain == pytest.approx(1, abs=0.1)
    assert 1e-9 < plain.highway_gain < 1e-5


def test_deepnorm_constants():
    """Wang et al. 2022: α = (2N)^¼ on every skip; value, output and feed-forward weights times β = (8N)^(−¼), query and key not."""
    model = zoo.deepnorm_transformer(32, 256)
    attention, feed_forward = model.blocks[0].body, model.blocks[1].body
    assert {unit.scale for unit in model.blocks} == {64**0.25}
    for linear, gain in ((attention.query, 1), (attention.key, 1), (attention.value, 0.25), (attention.out, 0.25), (feed_forward[0], 0.25)):
        assert (linear.weight.std() * 16).item() == pytest.approx(gain, rel=0.02)
    assert (feed_forward[2].weight.std() * 32).item() == pytest.approx(0.25, rel=0.02)
    assert {unit.scale for unit in zoo.deepnorm_transformer(2, 16, alpha=3.0, beta=1.0).blocks} == {3.0}


@ALL
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "heads=3 must divide width=64"),
        ({"blocks": 0}, "blocks=0"),
        ({"vocab": 0}, "vocab=0"),
        ({"hidden": -1}, "hidden=-1"),
        ({"activation": "x"}, "'gelu'"),
    ],
)
def test_a_wrong_argument_is_refused(build, wrong, message):
    """The error names the argument and what it may be."""
    with pytest.raises(ValueError, match=message):
        build(**wrong)


def test_more_tokens_than_positions():
    """The error says how many tokens fit and how to build a model for more."""
    with pytest.raises(ValueError, match="5 tokens do not fit into a context of 4"):
        zoo.pre_ln_transformer(1, 16, vocab=7, context=4)(torch.zeros(1, 5, dtype=torch.int64))
