"""What happens between input and output: checkpoints, custom functions, attention, derivatives and transforms inside the forward."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts
from ways_oracle import D, Half, Net, check, linear, rows

HALF = [("scaled", 0.5)]
SEQUENCE = rows(1, 3, 5, 8)


class Checkpointed(nn.Module):
    """Three blocks with dropout; `run` calls a block under a checkpoint."""

    def __init__(self, run):
        super().__init__()
        self.stem, self.blocks, self.head, self.run = linear(), nn.Sequential(Half(), Half(), Half()), linear(), run
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = self.run(lambda x, block=block: self.dropout(block(x)), x)
        return self.head(x)


def keep_products(context, operator, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if operator is torch.ops.aten.mm.default else CheckpointPolicy.PREFER_RECOMPUTE


def nested(run, x):
    return checkpoint(lambda x: checkpoint(run, x, use_reentrant=False), x, use_reentrant=False)


RUNS = {
    "re-entrant": partial(checkpoint, use_reentrant=True),
    "not re-entrant": partial(checkpoint, use_reentrant=False),
    "without random states": partial(checkpoint, use_reentrant=False, preserve_rng_state=True, determinism_check="none"),
    "selective by policy": partial(checkpoint, use_reentrant=False, context_fn=partial(create_selective_checkpoint_contexts, keep_products)),
    "one inside another": nested,
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_checkpoints(run):
    """Gradients are those of a checkpointed plain run, dropout included, and every skip inside is seen."""
    report = check(lambda: Checkpointed(run), rows())
    assert [skip.lam for skip in report.skips] == pytest.approx([0.5] * 3, rel=1e-12)


@pytest.mark.parametrize("reentrant", [False, True])
def test_sequential_checkpoints(reentrant):
    """checkpoint_sequential cuts the stack into segments; the skips are those of the stack."""

    class Cut(Checkpointed):
        def forward(self, x):
            return self.head(checkpoint_sequential(self.blocks, 2, self.stem(x), use_reentrant=reentrant))

    check(lambda: Cut(None), rows(), skips=HALF * 3)


class Once(Function):
    """The sine; its backward cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


class Two(Function):
    """Two outputs; `backward` is given None for one that is not used."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, first, second):
        parts = [p for p in (None if first is None else 2 * first, None if second is None else 3 * second) if p is not None]
        return sum(parts)


class Dirty(Function):
    """Doubles its input in place."""

    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


class Product(Function):
    """x @ w in the newer style."""

    @staticmethod
    def forward(x, w):
        return x @ w

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


class OneSided(Function):
    """Sends no gradient to its second operand."""

    @staticmethod
    def forward(ctx, x, y):
        return x + y

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Sorted(Function):
    """Values and their places; places have no gradient."""

    @staticmethod
    def forward(ctx, x):
        values, places = x.sort(-1)
        ctx.mark_non_differentiable(places)
        ctx.save_for_backward(places)
        return values, places

    @staticmethod
    def backward(ctx, grad, _):
        return torch.zeros_like(grad).scatter(-1, ctx.saved_tensors[0], grad)


BRANCHES = {
    "once_differentiable": Once.apply,
    "two outputs": lambda x: sum(Two.apply(x)),
    "one of two outputs": lambda x: Two.apply(x)[1],
    "in place": lambda x: Dirty.apply(x.clone()),
    "setup_context": lambda x: Product.apply(x, torch.eye(8, dtype=D)),
    "None for an operand": lambda x: OneSided.apply(x, x * 2),
    "a non-differentiable output": lambda x: Sorted.apply(x)[0],
}


@pytest.mark.parametrize("branch", BRANCHES.values(), ids=BRANCHES)
def test_custom_functions_on_a_branch(branch):
    """One node each, with a backward of the user's; the skip beside it is read as ever."""
    check(lambda: Net(branch), rows(), skips=HALF)


def test_custom_functions_on_a_skip():
    """The replay calls the user's backward: λ is the factor that it applies."""
    whole = lambda x, y: Dirty.apply(x.clone()) + torch.tanh(y)  # noqa: E731
    report = check(lambda: Net(whole=whole), rows())
    assert [skip.lam for skip in report.skips] == [2.0]
    assert report.skips[0].path_ops[-1:] == ("Dirty",)


class Attending(nn.Module):
    def __init__(self, need_weights, evaluate=False, **options):
        super().__init__()
        self.stem, self.head, self.need_weights = linear(), linear(), need_weights
        self.attention = nn.MultiheadAttention(8, 2, dtype=D, **options)
        self.train(not evaluate)

    def forward(self, x):
        x = self.stem(x)
        return self.head(0.5 * x + self.attention(x, x, x, need_weights=self.need_weights)[0])


OPTIONS = [{}, {"batch_first": True}, {"dropout": 0.1}, {"add_bias_kv": True, "add_zero_attn": True}, {"bias": False}, {"kdim": 8, "vdim": 8}]


@pytest.mark.parametrize("evaluate", [False, True], ids=["train", "eval"])
@pytest.mark.parametrize("need_weights", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_multihead_attention(options, need_weights, evaluate):
    """By the fast way and by the slow one; `out_proj`, which torch never calls, is a layer."""
    report = check(lambda: Attending(need_weights, evaluate, **options), SEQUENCE, skips=HALF)
    assert "attention.out_proj" in {layer.name for layer in report.layers}


def encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, dtype=D, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MASK = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 5])
ENCODERS = {
    "post-norm": (encoder, SEQUENCE),
    "pre-norm": (lambda: encoder(norm_first=True), SEQUENCE),
    "gelu in eval": (lambda: encoder(activation="gelu").eval(), SEQUENCE),
    "with padding": (encoder, {"src": SEQUENCE, "src_key_padding_mask": MASK}),
}


@pytest.mark.parametrize(("build", "inputs"), ENCODERS.values(), ids=ENCODERS)
def test_transformer_encoders(build, inputs):
    """Two identities per layer."""
    check(build, inputs, skips=[("identity", 1.0)] * 4)


ATTENTIONS = {
    "causal": {"is_causal": True},
    "masked": {"attn_mask": torch.zeros(5, 5, dtype=D)},
    "dropped": {"dropout_p": 0.2},
    "scaled": {"scale": 0.1},
}


@pytest.mark.parametrize("options", ATTENTIONS.values(), ids=ATTENTIONS)
def test_scaled_dot_product_attention(options):
    """Whichever kernel torch picks, the skip is beside it."""

    def attend(y):
        q, k, v = (y * s for s in (1.0, 2.0, 3.0))
        return functional.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], **options)[:, 0]

    check(lambda: Net(attend), SEQUENCE, skips=HALF)


class Penalised(nn.Module):
    """A critic with a gradient penalty: the loss holds the norm of a derivative."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = linear(), Half(), linear(8, 1)

    def critic(self, x):
        return self.head(self.block(self.stem(x)))

    def forward(self, x):
        between = (x * 0.7).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return self.critic(x).mean() + (slope.norm(dim=1) - 1).square().mean()


def test_a_gradient_penalty():
    """The block's skip in the forward, and the sum at its fork in the derivative, which is on the tape as well."""
    report = check(Penalised, rows())
    assert [(skip.name, skip.kind, skip.lam) for skip in report.skips] == [
        ("(Penalised)", "scaled", pytest.approx(0.5, rel=1e-9)),
        ("block", "scaled", pytest.approx(0.5, rel=1e-9)),
    ]


def test_a_derivative_without_a_graph():
    """autograd.grad of a part of the forward, whose result is a number like any other."""

    class Guided(Net):
        def forward(self, x):
            x = self.stem(x)
            x = 0.5 * x + torch.tanh(self.f(x))
            (slope,) = torch.autograd.grad(x.square().sum(), x, retain_graph=True)
            return self.head(x) + slope

    check(Guided, rows())


def test_a_backward_in_the_forward():
    """A side network that trains itself in the forward: its gradients are its own affair and are put back."""

    class Sided(Net):
        def __init__(self):
            super().__init__()
            self.side = linear(8, 1)

        def forward(self, x):
            self.side(x.detach()).sum().backward()
            return super().forward(x)

    check(Sided, rows(), skips=HALF, unmeasured={"side"}, silent={"side.weight", "side.bias"})


def test_vmap_over_samples():
    """A block under vmap: its output is a wrapper, and the tensor behind it is on the tape."""

    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block, self.head = linear(), Half(), linear()

        def forward(self, x):
            return self.head(vmap(self.block)(self.stem(x)))

    check(Mapped, rows(), skips=HALF)


class Ensemble(nn.Module):
    """Three networks as one: their weights are stacked, one network is called with all of them."""

    def __init__(self):
        super().__init__()
        members = [Net() for _ in range(3)]
        stacked, _ = stack_module_state(members)
        self.stem = linear()
        self.weights = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(w.detach()) for name, w in stacked.items()})
        self.names = list(stacked)
        self.call = partial(functional_call, members[0])

    def forward(self, x):
        weights = {name: self.weights[name.replace(".", "_")] for name in self.names}
        return vmap(self.call, in_dims=(0, None))(weights, self.stem(x)).mean(0)


def test_an_ensemble_of_stacked_weights():
    """stack_module_state and functional_call under vmap: one row for the three members' skips, with λ over all of them."""
    check(Ensemble, rows(), skips=HALF)


def test_an_ensemble_cut_from_its_modules():
    """stack_module_state detaches: a model that calls it in the forward has no gradient, and the error says so."""
    from gradflow import errors, profile

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.members = nn.ModuleList(Net() for _ in range(2))

        def forward(self, x):
            weights, _ = stack_module_state(list(self.members))
            return vmap(partial(functional_call, self.members[0]), in_dims=(0, None))(weights, x)

    with pytest.raises(errors.NoGradient, match="without any of its parameters"):
        profile(Cut(), rows())
