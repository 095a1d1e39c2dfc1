"""Diagrams that no model had to run for. Each is named by its situation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from gradflow.diagram import Diagram, Edge, Highway, Node, Skip
from gradflow.records import Input, Location, Opaque, Target

FILE = "/home/ada/envs/lab/lib/python3.12/site-packages/nets/models/net.py"


class Draft:
    """Builds a diagram node by node; node names are torch.fx's (`relu`, `relu_1`, …)."""

    def __init__(self, model_class: str) -> None:
        self.model_class = model_class
        self.nodes: list[Node] = []
        self.skips: list[Skip] = []
        self._used: dict[str, int] = {}

    def _add(self, stem: str, **fields: Any) -> str:
        n = self._used[stem] = self._used.get(stem, -1) + 1
        name = f"{stem}_{n}" if n else stem
        known: dict[str, Any] = {
            "id": len(self.nodes), "name": name, "operator": "", "role": None, "operands": (), "shape": (8, 16, 32, 32), "dtype": "float32", "module": None,
            "call": 0, "location": None, "parameter": None, "input": None, "data": True, "weighted": False,
        } | fields  # fmt: skip
        self.nodes.append(Node(**known))
        return name

    def input(self, name: str = "x") -> str:
        return self._add("x", op="placeholder", input=name)

    def op(self, operator: str, *operands: str, module: str | None = "", line: int = 1, weight: bool = False, **fields: Any) -> str:
        if weight:
            owned = f"{module}.weight"
            parameter = self._add("weight", op="get_attr", parameter=owned, module=module, data=False, shape=(16, 16, 3, 3))
            operands = (*operands, parameter)
        fields = {"role": "weighted" if weight else "layout", "weighted": weight} | fields
        where = Location(file=FILE, line=line)
        return self._add(operator, op="call_function", operator=f"aten.{operator}", operands=operands, module=module, location=where, **fields)

    def skip(self, id_: str, fork: str, join: str, kind: str = "identity", path: Sequence[str] = (), **fields: Any) -> None:
        steps = [fork, *path, join]
        edges = tuple(Edge(source=a, consumer=b, argument=0) for a, b in itertools.pairwise(steps))
        known: dict[str, Any] = {
            "id": id_, "call": sum(s.id == id_ for s in self.skips), "name": id_.partition("#")[0],
            "kind": kind, "form": "concat" if kind == "concat" else "add",
            "fork": fork, "join": join, "path": () if kind == "detached" else edges, "path_ops": tuple(path), "branch_edges": (), "branch": "conv1, conv2",
            "bypassed_layers": 2, "location": Location(file=FILE, line=102),
        } | fields  # fmt: skip
        self.skips.append(Skip(**known))

    def done(self, *returned: str, **fields: Any) -> Diagram:
        self._add("output", op="output", operands=returned, shape=(), dtype=None)
        marks: dict[str, dict[str, list[str]]] = {}
        for s in self.skips:
            ends = (("fork_of", [s.fork]), ("join_of", [s.join]), ("on_path_of", [e.consumer for e in s.path[:-1]]))
            for field, names in ends:
                for name in names:
                    ids = marks.setdefault(name, {}).setdefault(field, [])
                    ids += [s.id] if s.id not in ids else []
        nodes = tuple(dataclasses.replace(n, **{k: tuple(v) for k, v in marks.get(n.name, {}).items()}) for n in self.nodes)
        names = {n.name for n in nodes}
        edges = tuple(Edge(source=o, consumer=n.name, argument=i) for n in nodes for i, o in enumerate(n.operands) if o in names)
        ids = list(dict.fromkeys(s.id for s in self.skips if s.form == "add" and s.kind != "detached"))
        roads = (Highway(name=f"{ids[0]} … {ids[-1]}" if len(ids) > 1 else ids[0], skips=tuple(ids), trunk_ops=("relu",)),) if ids else ()
        known: dict[str, Any] = {
            "gradflow_version": "0.1.0", "mode": "train", "loss": "probe",
            "nodes": nodes, "edges": edges, "skips": tuple(self.skips), "highways": roads, "opaque": (),
            "target": Target(spec=f"nets.py:{self.model_class}", model_class=self.model_class, parameters=1_727_962, trainable_parameters=1_727_962),
            "inputs": (Input(name="x", dtype="float32", shape=(8, 3, 32, 32), source="model file"),),
        } | fields  # fmt: skip
        return Diagram(**known)


def _block(d: Draft, x: str, name: str, projection: bool = False) -> str:
    y = d.op("convolution", x, module=f"{name}.conv1", weight=True, line=92)
    y = d.op("relu", y, module=f"{name}.relu", line=93, role="activation")
    y = d.op("convolution", y, module=f"{name}.conv2", weight=True, line=94)
    if projection:
        s = d.op("convolution", x, module=f"{name}.downsample", weight=True, line=100)
        join = d.op("add", y, s, module=name, line=102, role="add")
        d.skip(name, x, join, "projection", [s])
    else:
        join = d.op("add", y, x, module=name, line=102, role="add")
        d.skip(name, x, join)
    return d.op("relu", join, module=f"{name}.relu", line=103, call=1, role="activation")


def resnet() -> Diagram:
    d = Draft("ResNet")
    x = d.op("convolution", d.input(), module="conv1", weight=True, line=9)
    for stage, blocks in (("layer1", 3), ("layer2", 2), ("layer3", 2)):
        for b in range(blocks):
            x = _block(d, x, f"{stage}.{b}", projection=stage != "layer1" and b == 0)
    x = d.op("mean", x, line=10, shape=(8, 16), role="pool")
    return d.done(d.op("nll_loss", d.op("log_softmax", x, module=None, shape=(8, 16)), module=None, shape=()), loss="cross_entropy")


def gpt() -> Diagram:
    d = Draft("GPT")
    x = d.op("add", d.op("embedding", d.input("ids"), module="wte", weight=True), "0.5", role="add")
    for b in range(12):
        for k, part in enumerate(("attn", "mlp"), 1):
            y = d.op("native_layer_norm", x, module=f"h.{b}.ln_{k}", weight=True, line=30 + k, role="norm")
            y = d.op("addmm", y, module=f"h.{b}.{part}.c_fc", weight=True, line=30 + k)
            y = d.op("view", y, module=f"h.{b}.{part}", line=40 + k)
            join = d.op("add", x, y, module=f"h.{b}", line=30 + k, role="add")
            d.skip(f"h.{b}#{k}", x, join)
            x = join
    return d.done(d.op("mm", x, module="lm_head", weight=True))


def unet() -> Diagram:
    """Nested concatenations, and one skip that overlaps them."""
    d = Draft("UNet")
    x, kept = d.input(), []
    first = x
    for i in range(4):
        x = d.op("convolution", x, module=f"down{'abcd'[i]}", weight=True, line=10 + i)
        kept.append(x)
    for i in reversed(range(4)):
        x = d.op("convolution", x, module=f"up{'abcd'[i]}", weight=True, line=20 + i)
        join = d.op("cat", x, kept[i], line=30 + i, role="concat")
        d.skip(f"(UNet)#{4 - i}", kept[i], join, "concat")
        x = join
        if i == 2:
            scaled = d.op("mul", first, "0.5", line=35, role="scale")
            x = d.op("add", x, scaled, line=35, role="add")
            d.skip("(UNet)#5", first, x, "scaled", [scaled])
    return d.done(x)


def densenet() -> Diagram:
    """Every concatenation takes all values before it."""
    d = Draft("DenseNet")
    kept = [d.op("convolution", d.input(), module="stem", weight=True)]
    for i in range(1, 13):
        x = d.op("cat", *kept, module=f"block.layer{i}", line=48, role="concat") if len(kept) > 1 else kept[0]
        for k, fork in enumerate(kept[:-1], 1):
            d.skip(f"block.layer{i}#{k}", fork, x, "concat", bypassed_layers=len(kept) - k)
        kept.append(d.op("convolution", x, module=f"block.layer{i}.conv", weight=True, line=50))
    return d.done(kept[-1])


def loop() -> Diagram:
    """A cell called 6 times, and then 5 turns of a loop that no module divides."""
    d = Draft("Unrolled")
    x = d.input()
    h = d.op("convolution", x, module="stem", weight=True)
    for t in range(6):
        y = d.op("addmm", h, module="cell.h", weight=t == 0, call=t, line=60, weighted=True)
        y = d.op("tanh", y, module="cell", call=t, line=61, role="activation")
        join = d.op("add", h, y, module="cell", call=t, line=62, role="add")
        d.skip("cell", h, join)
        h = join
    for _ in range(5):
        y = d.op("mul", h, "0.9", line=70, role="scale")
        h = d.op("sin", y, line=71, role="activation")
    return d.done(h)


def detached() -> Diagram:
    """A skip that is cut, beside an opaque part, with a note."""
    d = Draft("Cut")
    x = d.op("convolution", d.input(), module="stem", weight=True)
    y = d.op("mkldnn_rnn_layer", x, module="lstm", weight=True)
    join = d.op("add", "None", y, line=17, role="add")
    d.skip("(Cut)", x, join, "detached", path_ops=("detach",), location=Location(file=FILE, line=16))
    fix = "to see them, unroll the loop with nn.LSTMCell"
    part = Opaque(name="lstm", operator="mkldnn_rnn_layer", reason="a fused recurrent kernel", fix=fix, calls=1, parameters=("lstm.weight",), location=None)
    return d.done(join, opaque=(part,), notes=("built with random weights",))


NAMES = ("[red]", "[/red]", 'a<b&"c', "back\\slash", "模型", ":smile:", "$x_1$", "it's", "&lt;", "a -> b", "\\N", "# no", "new\nline", "tab\there", "\x1b[31mc")


def weird_names() -> Diagram:
    d = Draft('[red]<b&"c')
    x = d.input('in"put')
    for name in NAMES:
        y = d.op("addmm", x, module=name, weight=True)
        y = d.op("relu", y, module=f"{name}.act", role="activation")
        join = d.op("add", x, y, module=name, role="add")
        d.skip(name, x, join, location=Location(file=f"/tmp/{name}.py", line=3))
        x = join
    return d.done(x)


def nothing() -> Diagram:
    """No skip, and a leaf of the tape that is no parameter."""
    d = Draft("Plain")
    leaf = d._add("leaf", op="get_attr", parameter="", data=False)
    y = d.op("mul", d.op("convolution", d.input(), module="net.0", weight=True), leaf, "tensor[8, 1]", "alpha=0.5")
    return d.done(y, d.op("sin", y))


EVERY = (resnet, gpt, unet, densenet, loop, detached, weird_names, nothing)
