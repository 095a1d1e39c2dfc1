"""What cannot be seen is said and counted: fused kernels, custom functions, custom operators, compiled graphs. What runs inside has a true status."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

import gradflow
from gradflow.accounts import account_opaque
from gradflow.recorder import Recorder
from gradflow.render.terminal import render
from gradflow.tape import Leaves, lift

WIDTH = 4


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(output):
    return (output * randn(*output.shape, seed=2).to(output)).sum()


def profiled(build, x):
    torch.manual_seed(0)
    model = build()
    return model, gradflow.profile(model, x, loss=linear)


def seen(report):
    return [(part.name, part.operator, part.calls) for part in report.opaque]


def assert_parameters_measured(model, report, x):
    """Each parameter's gradient norm is the one of a plain run, and unreached is what got none there."""
    plain = copy.deepcopy(model)
    linear(plain(x)).backward()
    norms = {name: None if p.grad is None else float(p.grad.norm()) for name, p in plain.named_parameters()}
    found = {p.name: p.grad_norm for layer in report.layers for p in layer.parameters}
    assert found == {name: norm if norm is None else pytest.approx(norm, rel=1e-5) for name, norm in norms.items()}


class Product(torch.autograd.Function):
    """x @ w + x: a layer and a skip that no tape shows."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w.t() + x

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w + grad, grad.t() @ x


class WithProduct(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(randn(WIDTH, WIDTH))

    def forward(self, x):
        return Product.apply(x, self.weight)


class Reverse(torch.autograd.Function):
    """Additive coupling (Gomez et al. 2017): the backward pass computes the inputs anew and runs a backward pass of its own."""

    @staticmethod
    def forward(ctx, x, f, g):
        ctx.f, ctx.g = f, g
        a, b = x.chunk(2, 1)
        with torch.no_grad():
            c = a + f(b)
            d = b + g(c)
        ctx.save_for_backward(c, d)
        return torch.cat([c, d], 1)

    @staticmethod
    def backward(ctx, grad):
        c, d = ctx.saved_tensors
        with torch.no_grad():
            b = d - ctx.g(c)
            a = c - ctx.f(b)
        with torch.enable_grad():
            a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
            c = a + ctx.f(b)
            torch.autograd.backward(torch.cat([c, b + ctx.g(c)], 1), grad)
        return torch.cat([a.grad, b.grad], 1), None, None


class Reversible(nn.Module):
    def __init__(self, f=None):
        super().__init__()
        self.f = f or nn.Sequential(nn.Linear(WIDTH // 2, WIDTH // 2), nn.Tanh())
        self.g = nn.Linear(WIDTH // 2, WIDTH // 2)

    def forward(self, x):
        return Reverse.apply(x, self.f, self.g)


class Whole(torch.autograd.Function):
    """Runs a layer in its forward, and again in its backward pass."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x, layer):
        InParts.setup_context(ctx, (x, layer), None)
        return layer(x)

    @staticmethod
    def backward(ctx, grad):
        return InParts.backward(ctx, grad)


class InParts(torch.autograd.Function):
    """Likewise, with its ctx set up after the forward."""

    @staticmethod
    def forward(x, layer):
        return layer(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.x, ctx.layer = inputs

    @staticmethod
    def backward(ctx, grad):
        x = ctx.x.detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(ctx.layer(x), grad)
        return x.grad, None


class Around(nn.Module):
    """A skip connection around a module."""

    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


X = randn(3, WIDTH)


class TestFusedKernels:
    """Recurrent layers that are one operator."""

    @pytest.mark.parametrize(("options", "kernels"), [({}, 1), ({"num_layers": 2, "bidirectional": True, "dropout": 0.1}, 4)], ids=["one", "two layers"])
    def test_an_lstm(self, options, kernels):
        """Counted once per module; its output and its weights are measured all the same."""

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rnn = nn.LSTM(WIDTH, WIDTH, batch_first=True, **options)

            def forward(self, x):
                return self.rnn(x)[0]  # its line

        model, report = profiled(Net, randn(2, 5, WIDTH))
        assert seen(report) == [("rnn", "mkldnn_rnn_layer", kernels)]
        (part,) = report.opaque
        assert set(part.parameters) == {name for name, _ in model.named_parameters()}
        assert part.reason == "a fused recurrent kernel"
        assert (part.location.file, part.location.line) == (__file__, Net.forward.__code__.co_firstlineno + 1)
        (layer,) = report.layers
        assert layer.gain > 0
        if not options:
            assert_parameters_measured(model, report, randn(2, 5, WIDTH))
        assert gradflow.Report.from_json(report.to_json()) == report

    def test_what_the_terminal_says(self):
        """The coverage line counts it, and the verdict does not speak for it."""
        _, report = profiled(lambda: nn.Sequential(nn.LSTM(WIDTH, WIDTH), Chosen()), randn(5, 2, WIDTH))
        text = " ".join(render(report, width=100).split())
        assert "1 opaque: 0 (mkldnn_rnn_layer): skips and layers inside are not seen; to see them, profile in float64" in text
        assert "severity 0, 1 part not seen" in text
        assert "not everything was measured: see coverage" in text

    @pytest.mark.parametrize("module", [nn.GRU, nn.RNN])
    def test_modules_that_unroll(self, module):
        """Nothing is opaque."""
        _, report = profiled(lambda: nn.Sequential(module(WIDTH, WIDTH), Chosen()), randn(5, 2, WIDTH))
        assert report.opaque == ()


class Chosen(nn.Module):
    def forward(self, pair):
        return pair[0]


class TestCustomFunctions:
    """torch.autograd.Function."""

    def test_a_layer(self):
        """Named by its class and located where it is defined; its parameter is measured."""
        model, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), WithProduct(), WithProduct()), X)
        assert seen(report) == [("1", "Product", 1), ("2", "Product", 1)]
        assert report.opaque[0].parameters == ("1.weight",)
        assert report.opaque[0].reason == "a custom autograd.Function"
        assert (report.opaque[0].location.file, report.opaque[0].location.line) == (__file__, Product.forward.__code__.co_firstlineno)
        assert_parameters_measured(model, report, X)

    def test_a_function_called_many_times(self):
        """One record of as many calls."""

        class Twice(WithProduct):
            def forward(self, x):
                return super().forward(super().forward(x))

        _, report = profiled(Twice, X)
        assert seen(report) == [("(Twice)", "Product", 2)]

    def test_an_activation(self):
        """Of one value, without parameters: no skip and no layer can be inside."""

        class Swish(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x.sigmoid()

            @staticmethod
            def backward(ctx, grad):
                (x,) = ctx.saved_tensors
                s = x.sigmoid()
                return grad * (s + x * s * (1 - s))

        class Activated(nn.Linear):
            def forward(self, x):
                return Swish.apply(super().forward(x))

        _, report = profiled(lambda: Activated(WIDTH, WIDTH), X)
        assert report.opaque == ()

    def test_a_function_with_the_name_of_an_operator(self):
        """A class called Add need not add: it is opaque, and joins nothing."""

        class Add(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, y):
                ctx.save_for_backward(x, y)
                return x * y

            @staticmethod
            def backward(ctx, grad):
                x, y = ctx.saved_tensors
                return grad * y, grad * x

        class Net(nn.Linear):
            def forward(self, x):
                return Add.apply(x, super().forward(x))

        _, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Net(WIDTH, WIDTH)), X)
        assert seen(report) == [("1", "Add", 1)]
        assert report.skips == ()


class TestInsideFunctions:
    """Layers that run where the tape does not see them."""

    def test_reversible_blocks(self):
        """Their parameters are measured as in a plain run; their layers are not, and say where they run."""
        model, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Reversible(), Reversible(), nn.Linear(WIDTH, 2)), X)
        assert seen(report) == [("1", "Reverse", 1), ("2", "Reverse", 1)]
        assert set(report.opaque[0].parameters) == {f"1.{name}" for name in ("f.0.weight", "f.0.bias", "g.weight", "g.bias")}
        assert all(p.grad is None for p in model.parameters())
        assert_parameters_measured(model, report, X)
        reasons = {layer.name: layer.undefined.get("grad_norm") for layer in report.layers}
        assert reasons["0"] is None
        assert reasons["3"] is None
        assert all("it runs inside Reverse" in reasons[f"{i}.{part}"] for i in (1, 2) for part in ("f.0", "f.1", "g"))
        assert not [f for f in report.findings if f.rule == "GF104"]

    def test_a_layer_that_two_of_them_share(self):
        """Its gradient is accumulated by two backward passes: the norm is that of the sum."""

        def build():
            shared = nn.Linear(WIDTH // 2, WIDTH // 2)
            return nn.Sequential(nn.Linear(WIDTH, WIDTH), Reversible(shared), Reversible(shared))

        model, report = profiled(build, X)
        assert_parameters_measured(model, report, X)
        assert all(part.parameters[:2] == ("1.f.weight", "1.f.bias") for part in report.opaque)

    def test_a_skip_around_one(self):
        """The block is a branch with layers: the skip is found."""
        _, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Around(Reversible())), X)
        (skip,) = report.skips
        assert (skip.name, skip.kind, skip.lam, skip.branch) == ("1", "identity", 1.0, "branch")

    def test_a_parameter_that_its_backward_forgets(self):
        """Unreached, and the reason names the function."""

        class Forgetful(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, layer):
                return layer(x)

            @staticmethod
            def backward(ctx, grad):
                return grad, None

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(WIDTH, WIDTH)

            def forward(self, x):
                return Forgetful.apply(x, self.layer)

        model, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Net()), X)
        assert_parameters_measured(model, report, X)
        (layer,) = (layer for layer in report.layers if layer.name == "1.layer")
        assert {p.status for p in layer.parameters} == {"unreached"}
        assert all("inside Forgetful" in p.undefined["grad_norm"] for p in layer.parameters)

    @pytest.mark.parametrize("function", [Whole, InParts], ids=["forward(ctx, ...)", "setup_context"])
    def test_however_it_is_written(self, function):
        """Its forward with a ctx and a decorator, or with setup_context; its `apply` taken beforehand."""

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.applied = nn.Linear(WIDTH, WIDTH), function.apply

            def forward(self, x):
                return self.applied(x, self.layer)

        model, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Net()), X)
        assert_parameters_measured(model, report, X)
        assert report.opaque[0].parameters == ("1.layer.weight", "1.layer.bias")
        (layer,) = (layer for layer in report.layers if layer.name == "1.layer")
        assert f"it runs inside {function.__name__}" in layer.undefined["grad_norm"]

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_what_runs_without_gradients_after_one(self, mode):
        """A target network under no_grad() or inference_mode() is not inside the function that ran before it."""

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.product, self.teacher = WithProduct(), nn.Linear(WIDTH, WIDTH)

            def forward(self, x):
                y = self.product(x)
                with mode():
                    target = self.teacher(x)
                return y - target

        _, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Net()), X)
        reasons = {p.name: p.undefined.get("grad_norm", "") for layer in report.layers for p in layer.parameters}
        assert "no_grad() at" in reasons["1.teacher.weight"]

    def test_reformer(self):
        """Reversible layers with functions inside functions: every parameter as in a plain run, and no false alarm."""
        transformers = pytest.importorskip("transformers")
        torch.manual_seed(0)
        config = transformers.ReformerConfig(
            vocab_size=20, hidden_size=8, attention_head_size=4, num_attention_heads=2, feed_forward_size=8, attn_layers=["lsh", "local"], hash_seed=0,
            num_buckets=2, lsh_attn_chunk_length=4, local_attn_chunk_length=4, axial_pos_embds=False, num_hidden_layers=2, max_position_embeddings=16,
            hidden_dropout_prob=0.0, is_decoder=True,
        )  # fmt: skip
        model = transformers.ReformerModelWithLMHead(config).train()
        ids = torch.randint(20, (2, 8), generator=torch.Generator().manual_seed(1))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        report = gradflow.profile(model, inputs)
        plain = copy.deepcopy(model)
        plain(**inputs).loss.backward()
        unreached = {name for name, p in plain.named_parameters() if p.grad is None}
        assert {p.name for layer in report.layers for p in layer.parameters if p.status == "unreached"} == unreached
        assert seen(report) == [("reformer.encoder", "_ReversibleFunction", 1)]
        assert all("it runs inside _Rev" in x.undefined.get("grad_norm", "") for x in report.layers if ".layers." in x.name)


def opaque_behind(function):
    """What is opaque on a tape that no profile made: of function(x, weight), called until it is optimised."""
    model, x = WithProduct(), X.clone().requires_grad_()
    for _ in range(4):
        y = function(x, model.weight)
    tape = lift([y.sum()], Leaves(inputs=(("x", x),), parameters={model.weight: "weight"}), Recorder(model))
    return account_opaque(SimpleNamespace(tape=tape, module_calls=()), "Net")


class TestOtherOpaqueParts:
    """Operators and graphs that are not torch's own."""

    def test_a_custom_operator(self):
        """By its registered name."""

        @torch.library.custom_op("gradflow_tests::scan", mutates_args=())
        def scan(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return x @ w.t()

        def keep(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        def backward(ctx, grad):
            x, w = ctx.saved_tensors
            return grad @ w, grad.t() @ x

        scan.register_autograd(backward, setup_context=keep)

        class Scan(WithProduct):
            def forward(self, x):
                return scan(x, self.weight)

        model, report = profiled(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Scan()), X)
        assert seen(report) == [("1", "gradflow_tests::scan", 1)]
        assert report.opaque[0].reason == "a custom operator"
        assert report.opaque[0].parameters == ("1.weight",)
        assert_parameters_measured(model, report, X)

    def test_a_graph_compiled_ahead_of_time(self):
        """One node, whatever is in it. (A profile runs compiled modules eagerly; a tape made elsewhere may hold one.)"""
        aot = pytest.importorskip("torch._functorch.aot_autograd")
        compiled = aot.aot_function(functional.gelu, fw_compiler=lambda graph, _: graph)
        (part,) = opaque_behind(lambda x, _: compiled(x))
        assert (part.operator, part.reason) == ("CompiledFunction", "a compiled graph")

    @pytest.mark.filterwarnings("ignore:.*torch.jit")
    def test_a_torchscript_graph(self):
        """Where TorchScript differentiates a graph as one; likewise."""

        @torch.jit.script
        def gate(x, w):
            y = torch.tanh(x @ w)
            return torch.sigmoid(y * 2 + x) * y + x

        (part,) = opaque_behind(gate)
        assert (part.operator, part.parameters) == ("DifferentiableGraph", ("weight",))

    def test_operators_that_hide_nothing(self):
        """Attention, softmax, indexing, sorting, scattering: no skip is inside them, and none is counted."""

        class Net(nn.Linear):
            def forward(self, x):
                x = super().forward(x)
                x = functional.scaled_dot_product_attention(x[None], x[None], x[None])[0]
                x = x.softmax(-1).sort(-1).values + x.cumsum(-1)
                x = torch.where(x > 0, x, torch.atan2(x, x + 2))
                x = x.gather(1, torch.arange(WIDTH).flip(0).expand_as(x)).index_select(0, torch.arange(3))
                x = torch.zeros_like(x).scatter_add(1, torch.arange(WIDTH).expand_as(x), x).index_add(0, torch.arange(3), x)
                x[:, 0] = x[:, 1] * 2
                return torch.cdist(x, x.flip(0)) + torch.maximum(x, -x)[:, :3] + torch.einsum("ij,kj->ik", x, x)

        _, report = profiled(lambda: Net(WIDTH, WIDTH), X)
        assert report.opaque == ()
