"""Reports that no model had to run for: synthetic, but consistent in themselves. Each is named by its situation."""

from __future__ import annotations

import dataclasses
import math
import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from gradflow.records import (
    Channel,
    Channels,
    Environment,
    Finding,
    ForkSpectrum,
    Highway,
    Input,
    Layer,
    Location,
    Loss,
    Nonfinite,
    Opaque,
    Parameter,
    Probe,
    Report,
    Run,
    SampleShare,
    Segment,
    Skip,
    Streams,
    Target,
)

LAYER_NUMBERS = ("grad_norm", "grad_rms", "gain", "zero_fraction", "nonfinite", "fp16_underflow", "dead_units", "fluctuation")
SKIP_NUMBERS = tuple(sorted(Skip.optional))
FILE = "/home/ada/envs/lab/lib/python3.12/site-packages/torchvision/models/resnet.py"


def parameter(name: str, grad_norm: float | None = 1e-3, **changes: Any) -> Parameter:
    known: dict[str, Any] = {"shape": (16, 16), "status": "measured", "weight_norm": 4.0, "grad_norm": grad_norm}
    known["update_ratio"] = None if grad_norm is None else grad_norm / 4.0
    known |= changes
    reasons = known.pop("reasons", {})
    return Parameter(name=name, undefined=reasons, **known)


def layer(name: str, kind: str, depth: int, gain: float | None, *, why: str = "its output has no gradient", parameters: int = 1, **changes: Any) -> Layer:
    numbers: dict[str, Any]
    if gain is None:
        numbers = dict.fromkeys(LAYER_NUMBERS) | {"undefined": dict.fromkeys(LAYER_NUMBERS, why)}
    else:
        zeros = 1.0 if gain == 0 else 0.0
        numbers = {"grad_norm": gain * 0.25, "grad_rms": gain * 1e-4, "gain": gain, "zero_fraction": zeros, "nonfinite": 0}
        numbers |= {"fp16_underflow": 0.0, "dead_units": 0.0, "fluctuation": 0.1}
    owned = tuple(parameter(f"{name}.{part}", None if gain is None else gain * 1e-2, **_unreached(gain, why)) for part in ("weight", "bias")[:parameters])
    known: dict[str, Any] = {"calls": 1, "location": Location(file=FILE, line=92), "output_shape": (8, 16, 32, 32), "parameters": owned} | numbers | changes
    return Layer(name=name, type=kind, depth=depth, **known)


def _unreached(gain: float | None, why: str) -> dict[str, Any]:
    return {"status": "unreached", "reasons": {"grad_norm": why, "update_ratio": why}} if gain is None else {}


def skip(id_: str, fork_depth: int, join_depth: int, **changes: Any) -> Skip:
    known: dict[str, Any] = {
        "id": id_, "name": id_, "fork": f"relu_{fork_depth}", "join": f"add_{join_depth}", "form": "add", "kind": "identity", "path_ops": (),
        "branch": f"{id_}.branch", "location": Location(file=FILE, line=102), "calls": 1, "bypassed_layers": 2,
        "lam": 1.0, "lam_low": 1.0, "lam_high": 1.0, "n_eff": 7.6, "lam_full": 1.0, "misfit": 0.0, "gain": 1.0, "branch_gain": 0.3, "total_gain": 1.05,
        "gain_low": 1.0, "gain_high": 1.0,
        "cos_skip_branch": 0.1, "bound_holds": True, "highway_gain": 1.0, "highway_share": 0.9, "ledger_error": 1e-7,
    } | changes  # fmt: skip
    if known["lam"] is None:
        known |= dict.fromkeys(("lam_low", "lam_high", "lam_full", "misfit"))
    reasons = {n: "fork and join differ in shape" for n in SKIP_NUMBERS if known[n] is None} | dict(known.pop("undefined", {}))
    return Skip(fork_depth=fork_depth, join_depth=join_depth, undefined=reasons, **known)


def highway(skips: Sequence[Skip], **changes: Any) -> Highway:
    lams = [s.lam for s in skips]
    product = None if None in lams else math.prod(lam for lam in lams if lam is not None)
    known: dict[str, Any] = {
        "name": f"{skips[0].id} … {skips[-1].id}", "skips": tuple(s.id for s in skips), "trunk_ops": ("relu", "convolution"), "product_of_lambdas": product,
        "gain": skips[0].highway_gain, "total_gain": 1.1, "top_gain": 1.0, "identity_gain": skips[0].highway_gain,
        "fork_gains": tuple(s.highway_gain or 0.0 for s in skips),
        "undefined": {} if product is not None else {"product_of_lambdas": "the λ of a skip is undefined"},
    } | changes  # fmt: skip
    return Highway(**known)


def finding(
    rule: str, where: str, message: str, fix: str, *, severity: str = "error", value: float | None = 0.5, limit: float | None = 0.9, **more: Any
) -> Finding:
    reasons = {n: "counted, not measured" for n, v in (("value", value), ("limit", limit)) if v is None}
    known: dict[str, Any] = {"decades": 0.0, "location": Location(file=FILE, line=102)} | more
    return Finding(rule=rule, severity=severity, where=where, message=message, fix=fix, value=value, limit=limit, undefined=reasons, **known)  # type: ignore[arg-type]


def report(layers: Sequence[Layer], skips: Sequence[Skip] = (), highways: Sequence[Highway] = (), findings: Sequence[Finding] = (), **changes: Any) -> Report:
    severities = {f.severity for f in findings}
    verdict = "sick" if "error" in severities else "warnings" if "warning" in severities else "healthy"
    run = Run(
        mode="train", inputs=(Input(name="x", dtype="float32", shape=(8, 3, 32, 32), source="model file"),), batches=1,
        loss=Loss(name="cross_entropy", value=2.302585, source="targets drawn at random with seed 0"), forward_s=0.12, backward_s=0.24, analysis_s=0.03,
    )  # fmt: skip
    known: dict[str, Any] = {
        "gradflow_version": "0.1.0", "run": run, "verdict": verdict, "severity": round(sum(f.decades for f in findings), 2),
        "environment": Environment(torch="2.13.0", python="3.12.4", platform="Linux-x86_64", device="cpu", dtype="float32", amp=None, seed=0),
        "target": Target(spec="zoo.py:model", model_class="ResNet", parameters=1_727_962, trainable_parameters=1_727_962),
    } | changes  # fmt: skip
    return Report(layers=tuple(layers), skips=tuple(skips), highways=tuple(highways), findings=tuple(findings), **known)


def target(model_class: str, parameters: int) -> Target:
    return Target(spec=f"models/{model_class.lower()}.py:model", model_class=model_class, parameters=parameters, trainable_parameters=parameters)


def residual(stages: Mapping[str, int], lam: float, rng: random.Random, trunk: float = 1.0) -> tuple[list[Layer], list[Skip]]:
    """A CIFAR-style residual network: conv1, then per block conv1, bn1, relu, conv2, bn2; the branch's gain grows as its skip shrinks."""
    layers, skips = [layer("conv1", "Conv2d", 0, 1.0)], []
    for stage, blocks in stages.items():
        for b in range(blocks):
            name, fork = f"{stage}.{b}", len(layers)
            for part, kind in (("conv1", "Conv2d"), ("bn1", "BatchNorm2d"), ("relu", "ReLU"), ("conv2", "Conv2d"), ("bn2", "BatchNorm2d")):
                layers.append(layer(f"{name}.{part}", kind, len(layers), 1.0, parameters=0 if part == "relu" else 1))
            strided = b == 0 and stage != next(iter(stages))
            branch = 0.3 + 0.1 * rng.random()
            if strided:
                skips.append(skip(name, fork, len(layers), kind="projection", path_ops=("convolution",), lam=None, gain=0.7, branch_gain=branch))
            else:
                kind = "identity" if lam == 1.0 else "scaled"
                numbers: dict[str, Any] = dict.fromkeys(("lam", "lam_low", "lam_high", "lam_full", "gain"), lam)
                skips.append(skip(name, fork, len(layers), kind=kind, branch_gain=branch, cos_skip_branch=rng.uniform(-0.2, 0.3), **numbers))
    layers.append(layer("fc", "Linear", len(layers), 1.0, parameters=2))
    return _settle(layers, skips, trunk, rng)


def _settle(layers: list[Layer], skips: list[Skip], trunk: float, rng: random.Random) -> tuple[list[Layer], list[Skip]]:
    """Gives layers and skips the gains that follow from the skips, from the output backwards."""
    gains, highway_gain, stream, settled = [1.0] * len(layers), 1.0, 1.0, []
    for s in reversed(skips):
        assert s.gain is not None and s.branch_gain is not None
        highway_gain *= s.gain * trunk
        total = math.hypot(s.gain, s.branch_gain)
        for d in range(s.fork_depth, s.join_depth):
            gains[d] = stream * (0.3 + 0.5 * rng.random())
        stream *= total * trunk
        settled.append(dataclasses.replace(s, highway_gain=highway_gain, total_gain=total, bound_holds=True))
    for d in range(min((s.fork_depth for s in skips), default=0)):
        gains[d] = stream
    again = [layer(x.name, x.type, x.depth, gains[x.depth], parameters=len(x.parameters)) for x in layers]
    return again, settled[::-1]


def healthy_resnet() -> Report:
    layers, skips = residual({"layer1": 4, "layer2": 4, "layer3": 4, "layer4": 4}, 1.0, random.Random(1))
    note = finding(
        "GF203", "layer1.0", "Branch closed by its zero-initialised norm.", "Nothing: it opens in training.", severity="info", value=None, limit=None
    )
    return report(layers, skips, [highway(skips)], [note], target=target("ResNet34", 21_797_672))


def half_resnet110() -> Report:
    layers, skips = residual({"layer1": 18, "layer2": 18, "layer3": 18}, 0.5, random.Random(2))
    skips = [dataclasses.replace(s, kind="scaled", lam=0.5, lam_low=0.5, lam_high=0.5, lam_full=0.5, misfit=0.0, gain=0.5, undefined={}) for s in skips]
    skips = [dataclasses.replace(s, highway_gain=0.5 ** (54 - i), branch_gain=0.2) for i, s in enumerate(skips)]
    road = highway(skips, trunk_ops=(), total_gain=layers[0].gain)
    shrinks = [
        finding("GF201", s.id, "λ = 0.5: the skip passes half of the gradient.", "Let the skip be the identity: return x + f(x).", decades=0.0) for s in skips
    ]
    lost = finding(
        "GF301", road.name, "The highway of 54 skips passes 5.55e-17 of the gradient.", "Remove the factor on the skip path; scale the branch instead.",
        value=road.gain, limit=1e-3, decades=13.3,
    )  # fmt: skip
    first = finding("GF101", "conv1", "The gradient vanishes before it reaches this layer.", "Mend the highway first.", value=layers[0].gain, limit=1e-4)
    return report(layers, skips, [road], [lost, first, *shrinks], target=target("CifarResNet110", 1_727_962))


def sigmoid_mlp() -> Report:
    layers: list[Layer] = []
    for i in range(30):
        gain = 10 ** (-25 * (29 - i) / 29)
        layers.append(layer(f"net.{2 * i}", "Linear", len(layers), gain, parameters=2))
        if i < 29:
            layers.append(layer(f"net.{2 * i + 1}", "Sigmoid", len(layers), gain * 2, parameters=0))
    found = [
        finding(
            "GF101", f"net.{2 * i}", f"The gradient vanishes: its gain is {layers[2 * i].gain:.3g}.",
            "Replace the saturating activation, or add skip connections.", value=layers[2 * i].gain, limit=1e-4, decades=21.0 if i == 0 else 0.0,
        )
        for i in range(24)
    ]  # fmt: skip
    return report(layers, findings=found, target=target("SigmoidMLP", 31_744))


def gpt() -> Report:
    rng, layers, skips = random.Random(3), [layer("tok_emb", "Embedding", 0, 1.3), layer("pos_emb", "Embedding", 1, 1.3)], []
    for b in range(24):
        for norm, part, leaves in (("ln_1", "attn", ("c_attn", "c_proj")), ("ln_2", "mlp", ("c_fc", "gelu", "c_proj"))):
            fork = len(layers)
            layers.append(layer(f"blocks.{b}.{norm}", "LayerNorm", fork, 0.2 + 0.05 * rng.random(), parameters=2))
            for leaf in leaves:
                owned = 0 if leaf == "gelu" else 2
                kind = "GELU" if leaf == "gelu" else "Linear"
                layers.append(layer(f"blocks.{b}.{part}.{leaf}", kind, len(layers), (0.9 if leaf == "c_proj" else 0.25) + 0.1 * rng.random(), parameters=owned))
            name = f"blocks.{b}" if part == "attn" else f"blocks.{b}#2"
            branch = 0.15 + 0.2 * rng.random()
            skips.append(skip(name, fork, len(layers), name=f"blocks.{b}", branch_gain=branch, cos_skip_branch=rng.uniform(-0.1, 0.1)))
    layers += [layer("ln_f", "LayerNorm", len(layers), 1.0, parameters=2), layer("head", "Linear", len(layers) + 1, 1.0)]
    return report(layers, skips, [highway(skips, trunk_ops=())], target=target("GPT", 353_772_544))


def densenet() -> Report:
    rng, layers, skips = random.Random(4), [layer("features.conv0", "Conv2d", 0, 0.4)], []
    for block, size in enumerate((6, 10, 12), start=1):
        forks = [len(layers)]
        for i in range(1, size + 1):
            name = f"features.denseblock{block}.denselayer{i}"
            for part in ("norm1", "conv1", "norm2", "conv2"):
                kind = "Conv2d" if "conv" in part else "BatchNorm2d"
                layers.append(layer(f"{name}.{part}", kind, len(layers), 10 ** rng.uniform(-1.2, 0.2)))
            for k, fork in enumerate(forks):
                gain, id_ = rng.uniform(0.15, 1.0), f"{name}#{k}"
                skips.append(skip(id_, fork, len(layers), name=name, kind="concat", form="concat", lam=None, gain=gain, branch_gain=rng.uniform(0.05, 0.6)))
            forks.append(len(layers))
        layers.append(layer(f"features.transition{block}.conv", "Conv2d", len(layers), 0.7))
    layers.append(layer("classifier", "Linear", len(layers), 1.0, parameters=2))
    return report(layers, skips, target=target("DenseNet", 7_978_856))


def thousand_layers() -> Report:
    layers, skips = residual({"layer1": 66, "layer2": 66, "layer3": 67}, 1.0, random.Random(5), trunk=0.97)
    return report(layers, skips, [highway(skips)], target=target("PreActResNet1001", 10_327_706))


def three_layers() -> Report:
    layers = [layer("0", "Linear", 0, 0.31, parameters=2), layer("1", "ReLU", 1, 0.8, parameters=0), layer("2", "Linear", 2, 1.0, parameters=2)]
    return report(layers, target=target("Sequential", 1_210))


def one_layer() -> Report:
    return report([layer("", "Linear", 0, 1.0)], target=target("Linear", 10))


def nothing() -> Report:
    return report([])


def unmeasured() -> Report:
    layers = [layer(f"blocks.{i}", "Linear", i, None, why="the gradient is cut by detach()") for i in range(4)] + [layer("head", "Linear", 4, 1.0)]
    gone: Any = dict.fromkeys(SKIP_NUMBERS)
    skips = [skip("blocks.3", 1, 4, undefined=dict.fromkeys(SKIP_NUMBERS, "no gradient reached the join"), **gone)]
    lost = dict.fromkeys(("product_of_lambdas", "gain", "total_gain", "top_gain", "identity_gain"), "no gradient reached the join")
    road = Highway(
        name="h",
        skips=("blocks.3",),
        trunk_ops=(),
        product_of_lambdas=None,
        gain=None,
        total_gain=None,
        top_gain=None,
        identity_gain=None,
        fork_gains=(),
        undefined=lost,
    )
    found = finding("GF110", "blocks.0", "No gradient reaches this layer.", "Remove the detach().", value=None, limit=None, severity="warning")
    return report(layers, skips, [road], [found])


def all_zero() -> Report:
    layers = [layer(f"net.{i}", "Linear", i, 0.0) for i in range(12)]
    found = [
        finding("GF102", f"net.{i}", "The gradient is exactly 0.", "Check the loss.", value=0.0, limit=0.0, decades=20.0 if i == 0 else 0.0) for i in range(12)
    ]
    return report(layers, [skip("net", 1, 9, gain=0.0, lam=0.0, branch_gain=0.0, highway_gain=0.0, kind="detached")], findings=found)


def extremes() -> Report:
    gains = (1e-300, 1e300, 0.0, None, 1.0, 1e-5, 5e-324, 0.99999)
    layers = [layer(f"m{i}", "Linear", i, g, grad_norm=g, undefined={n: "why" for n in LAYER_NUMBERS} if g is None else {}) for i, g in enumerate(gains)]
    skips = [
        skip("a", 0, 3, kind="scaled", lam=1e-300, lam_low=1e-301, lam_high=2e-300, gain=1e-300, branch_gain=1e300, highway_gain=1e-300),
        skip("b", 3, 5, kind="scaled", lam=1e300, lam_low=-1e300, lam_high=1.5e300, gain=1e300, branch_gain=1e-300, highway_gain=1e300),
        skip("c", 5, 8, kind="gated", lam=0.99999, lam_low=0.9, lam_high=1.1, gain=0.99999),
    ]
    return report(layers, skips, [highway(skips, product_of_lambdas=0.99999, gain=1e-300)])


def weird_names() -> Report:
    names = ("[red]", "[/red]", 'a<b&"c', "$x_1$", "_hidden", "a b\n\x1b[31mc", "模型.层", "x" * 120, "back\\slash", ":smile:", "")
    layers = [layer(n, "[bold]Linear[/bold]", i, 10.0**-i, location=Location(file="[red]/$f$.py", line=1)) for i, n in enumerate(names)]
    skips = [skip(n, i, i + 1, kind="scaled", lam=0.3, location=Location(file="[red]/$f$.py", line=1)) for i, n in enumerate(names)]
    found = [finding("GF101", n, f"{n}: [blink]too small[/blink] $y^2$", "Write `x + f(x)` [b]here[/b].", value=10.0**-i) for i, n in enumerate(names)]
    return report(layers, skips, [highway(skips)], found, target=target("[red]Net$", 12))


def cross_purposes() -> Report:
    """Branches that oppose their skips, λ with an interval, a gate, one closed branch."""
    layers, skips = residual({"stage1": 3, "stage2": 3}, 1.0, random.Random(7))
    skips[1] = dataclasses.replace(skips[1], kind="gated", lam=0.62, lam_low=0.4, lam_high=0.81, lam_full=0.55, gain=0.65, misfit=0.3)
    skips[2] = dataclasses.replace(skips[2], cos_skip_branch=-0.83, branch_gain=0.9, total_gain=0.56, bound_holds=False)
    skips[4] = dataclasses.replace(skips[4], branch_gain=0.0, cos_skip_branch=None, undefined={"cos_skip_branch": "the branch's gradient is 0"})
    found = [
        finding("GF202", "stage1.2", "The branch works against its skip: cos = -0.83.", "Look at the branch's last layer.", severity="warning", decades=0.4)
    ]
    return report(layers, skips, [highway(skips)], found)


def closed_branches() -> Report:
    """A ResNet whose last norms start at zero: its branches get no gradient at first, and nothing is wrong."""
    layers, skips = residual({"layer1": 2, "layer2": 2}, 1.0, random.Random(8))
    shut = [x if "conv" not in x.name or "." not in x.name else layer(x.name, x.type, x.depth, 0.0, closed_by=f"{x.name[:-6]}.bn2.weight") for x in layers]
    why = {"cos_skip_branch": "the branch's gradient is 0"}
    skips = [dataclasses.replace(s, branch_gain=0.0, cos_skip_branch=None, undefined={**s.undefined, **why}) for s in skips]
    notes = [
        finding(
            "GF105", x.name, f"The branch with {x.name} is closed by its zero-initialised {x.closed_by}: a gradient of 0 is expected at the first step.",
            "Nothing to mend.", severity="info", value=0.0, limit=None,
        )
        for x in shut if x.closed_by
    ]  # fmt: skip
    return report(shut, skips, [highway(skips)], notes)


def opaque_parts() -> Report:
    """A fused LSTM between two linear layers, and custom functions in which layers run unseen."""
    inside = [layer(f"blocks.{i}.{part}", "Linear", 2, None, why="it runs inside Reverse, a custom autograd.Function") for i in range(4) for part in "fg"]
    layers = [layer("proj", "Linear", 0, 0.4), layer("rnn", "LSTM", 1, 0.6, parameters=0), *inside, layer("head", "Linear", 10, 1.0)]
    written = "to see them, profile a variant of it that is written with torch's operators"
    functions = [
        Opaque(
            name=f"blocks.{i}", operator="Reverse", reason="a custom autograd.Function", fix=written, calls=1,
            parameters=(f"blocks.{i}.f.weight", f"blocks.{i}.g.weight"), location=Location(file=FILE, line=12),
        )
        for i in range(4)
    ]  # fmt: skip
    fused = Opaque(
        name="rnn", operator="mkldnn_rnn_layer", reason="a fused recurrent kernel", fix="to see them, unroll the loop with nn.LSTMCell", calls=2,
        parameters=("rnn.weight_ih_l0", "rnn.weight_hh_l0"), location=None,
    )  # fmt: skip
    return report(layers, opaque=(fused, *functions), target=target("Speech", 12_000))


def loops() -> Report:
    """A cell in a loop whose forget gate opens with time, one that ends silent, and a block that is applied four times."""
    layers = [layer("there", "LSTMCell", 0, 0.5, calls=60, parameters=2), layer("back", "LSTMCell", 1, 0.4, calls=60, parameters=2)]
    layers += [layer("block", "Linear", 2, 1.0, calls=4), layer("head", "Linear", 3, 1.0)]
    opening = tuple(0.4 + 0.2 * i / 58 for i in range(59))
    closing: Any = {"lam": 0.48, "lam_low": 0.46, "lam_high": 0.5, "lam_full": 0.47, "gain": 0.5, "highway_gain": 1e-18}
    skips = [
        skip("there", 0, 1, kind="gated", calls=59, lam=0.52, lam_low=0.5, lam_high=0.54, lam_full=0.51, gain=0.53, highway_gain=1e-17, trend=opening),
        skip("back", 1, 2, kind="gated", calls=59, trend=(*opening[:49], *(None,) * 10), **closing),
        skip("block", 2, 3, calls=4, trend=(1.0,) * 4),
    ]
    return report(layers, skips, [highway([skips[2]])], target=target("Tagger", 5_000))


def recurrent(lam: float = 0.4, dtype: str = "float32", calls: int = 200) -> Report:
    """A cell whose carry passes on λ at each call, held in float32: its gain is a power of λ, until the type has no smaller number."""
    layers = [layer("cell", "LSTMCell", 0, 0.5, calls=calls + 1, parameters=2), layer("head", "Linear", 1, 1.0)]
    carry = skip("cell", 0, 1, kind="gated", calls=calls, lam=lam, lam_low=lam, lam_high=lam, gain=lam, trend=(lam,) * calls)
    gains, left = [], 1.0
    for _ in range(calls):
        left = struct.unpack("f", struct.pack("f", left * lam))[0] if dtype == "float32" else left * lam
        gains.append(left)
    road = highway([carry] * calls, name="cell", fork_gains=tuple(reversed(gains)), gain=gains[-1], identity_gain=1.0, top_gain=0.25)
    environment = dataclasses.replace(report(layers).environment, dtype=dtype)
    return report(layers, [carry], [road], environment=environment, target=target("Tagger", 5_000))


def probed() -> Report:
    """All that is measured on request, or of special skips: random cotangents that disagree, channels, mixed streams, segments, a path spectrum."""
    layers = [layer(f"blocks.{i}", "Block", i, 1.0 + 0.1 * i) for i in range(8)]
    agreeing = Probe(probes=4, trace=1.0, trace_low=1.0, trace_high=1.0, frobenius=1.0, agrees=True)
    biased = Probe(probes=4, trace=0.65, trace_low=0.6, trace_high=0.7, frobenius=0.54, agrees=False)
    traceless = Probe(
        probes=4, trace=None, trace_low=None, trace_high=None, frobenius=0.5, agrees=None,
        undefined=dict.fromkeys(("trace", "trace_low", "trace_high", "agrees"), "fork and join do not hold the same coordinates"),
    )  # fmt: skip
    worst = (Channel(index=3, lam=0.1), Channel(index=17, lam=0.12), Channel(index=0, lam=1.2))
    channels = Channels(dimension=1, count=64, silent=2, minimum=0.1, median=0.65, maximum=1.2, worst=worst)
    scaled: Any = {"kind": "scaled", "lam": 0.9, "lam_low": 0.85, "lam_high": 0.95, "lam_full": 0.9, "misfit": 0.4, "gain": 0.97, "gain_low": 0.9}
    skips = [skip(f"blocks.{i}", i, i + 1, probe=agreeing) for i in range(3)]
    skips += [skip("blocks.3", 3, 4, kind="projection", lam=None, gain=0.7, gain_low=0.68, gain_high=0.72, highway_gain=0.7, probe=traceless)]
    skips += [skip(f"blocks.{i}", i, i + 1, probe=biased, channels=channels, **scaled) for i in (4, 5)]
    skips += [skip(f"blocks.{i}", i, i + 1, kind="streams", streams=mixing(), misfit=0.2, probe=agreeing) for i in (6, 7)]
    segments = (
        Segment(name="blocks.0 … blocks.2", form="stage", skips=("blocks.0", "blocks.1", "blocks.2"), ops=("relu",), gain=1.0),
        Segment(name="blocks.3", form="transition", skips=("blocks.3",), ops=("convolution", "batch_norm"), gain=0.7),
        Segment(name="blocks.4 … blocks.7", form="stage", skips=tuple(f"blocks.{i}" for i in range(4, 8)), ops=("mul", "bmm"), gain=0.8),
    )
    binomial = [math.comb(8, m) * 0.3**m for m in range(9)]
    whole = sum(binomial)
    spectrum = ForkSpectrum(
        fork="blocks.0", norms=tuple(math.sqrt(b / whole) for b in binomial), shares=tuple(0.98 * b / whole for b in binomial), other_share=0.02,
        mean_length=sum(m * b for m, b in enumerate(binomial)) / whole,
    )  # fmt: skip
    mixed = (mixing(rank=1), mixing(rank=1))
    road = highway(skips, segments=segments, spectrum=(spectrum,), streams=mixed, gain=0.56, identity_gain=1.0)
    return report(layers, skips, [road], target=target("Everything", 5_000))


def mixing(rank: int = 4) -> Streams:
    sums = {"backward_sum": 1.4, "backward_sum_least": 0.8}
    others = {"forward_sum": 1.3, "forward_sum_least": 0.7, "forward_abs": 1.6, "forward_abs_least": 1.0, "backward_abs": 1.7, "backward_abs_least": 0.9}
    matrix = tuple(tuple(1.0 if i == j else 0.1 for j in range(4)) for i in range(4))
    known: dict[str, Any] = {"count": 4, "rank": rank, "measured_by": "loss gradient", "column_sums": (0.8, 1.0, 1.1, 1.4), "misfit": 0.2}
    if rank == 4:
        return Streams(matrix=matrix, **known, **sums, **others)
    reasons = dict.fromkeys(("matrix", *others), f"the gradients of the 4 streams have rank {rank}: they show the matrix's column sums alone")
    return Streams(matrix=None, **known, **sums, **dict.fromkeys(others), undefined=reasons)


def broken_batches() -> Report:
    """Eight batches: an infinity is made in the third, a layer's units die, one sample carries most."""
    layers = [
        layer(f"blocks.{i}.conv", "Conv2d", i, 0.5, dead_units=0.0 if i else 0.375, fluctuation=0.2 + 0.1 * i, nonfinite=12 if i < 2 else 0) for i in range(4)
    ]
    layers.append(layer("scale", "LogScale", 4, 1.0, location=Location(file="nets/<scale>.py", line=31), **_without("dead_units", "no weight has units")))
    found = [
        finding(
            "GF103", "blocks.0.conv", "blocks.0.conv (Conv2d) receives 12 values that are not finite; log made the first.", "Clamp it.", value=12.0, limit=0.0
        ),
        finding("GF109", "blocks.0.conv", "3 of 8 units of blocks.0.conv receive no gradient.", "Lower the rate.", severity="warning", value=0.375, limit=0.3),
    ]
    made = Nonfinite(
        operator="log",
        module="scale",
        phase="forward",
        location=Location(file="nets/<scale>.py", line=31),
        what="-inf was made of 3 zeros | `x` @home",
        batch=2,
    )
    shares = (
        SampleShare(where="output", samples=64, largest=0.62, sample=5, batch=2),
        SampleShare(where="blocks.0.conv", samples=64, largest=0.71, sample=5, batch=2),
    )
    whole = report(layers, [skip(f"blocks.{i}", i, i + 1) for i in range(4)], findings=found, nonfinite=made, target=target("Noisy", 5_000))
    return dataclasses.replace(whole, run=dataclasses.replace(whole.run, batches=8, sample_shares=shares, notes=("tied.weight is tied | to <b>a</b> @ada",)))


def _without(name: str, why: str) -> dict[str, Any]:
    return {name: None, "undefined": {name: why}}


def counted_note() -> Report:
    """Nothing alarms, and a note on the first layer counts towards the severity."""
    layers, skips = residual({"layer1": 2, "layer2": 2}, 1.0, random.Random(3))
    message = "conv1 (Conv2d), the first layer, receives 332 times the output's gradient norm: no alarm, and it counts."
    found = [finding("GF102", "conv1", message, "Nothing, where training starts well.", severity="info", value=331.9, limit=30.0, decades=1.04)]
    return report(layers, skips, [highway(skips)], found)


EVERY = (
    healthy_resnet, half_resnet110, sigmoid_mlp, gpt, densenet, thousand_layers, three_layers, one_layer, nothing, unmeasured, all_zero, extremes, weird_names,
    cross_purposes, closed_branches, opaque_parts, loops, probed, broken_batches, counted_note,
)  # fmt: skip
