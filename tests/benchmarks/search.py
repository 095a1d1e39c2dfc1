"""How lifting and searching grow with the tape: `python tests/benchmarks/search.py [--sizes 1e3,1e4,1e5,1e6] [--nets residual,recurrent,unet]`.

Each measurement is a process of its own, one thread, so that its peak memory is its own: forward under the recorder, lift, search for skips and highways.
The exponent is the slope of log(seconds) over log(nodes), fitted over all sizes.
"""

import argparse
import gc
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradflow.recorder import Recorder
from gradflow.residual import find_highways, find_skips
from gradflow.tape import Leaves, lift

WIDTH = 2  # a tensor's size does not matter to the search, and a million of them must fit


class Residual(nn.Module):
    """x <- x + W·tanh(W·x), one unit after the other: as many skips as units, one highway."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.units, self.weight = nodes // 4, nn.Parameter(torch.randn(WIDTH, WIDTH) / 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.units):
            x = x + (x @ self.weight).tanh() @ self.weight
        return x


class Recurrent(nn.Module):
    """An LSTM cell over the steps of a sequence: one row, as many calls as steps."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.steps, self.cell = nodes // 20, nn.LSTMCell(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.expand(self.steps, *x.shape).unbind(0):
            state = self.cell(step, state)
        return state[0]


class UNets(nn.Module):
    """U-Nets of five levels one after the other, their skips concatenated: long-range skips, nested."""

    LEVELS = 5

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.nets = max(1, nodes // (6 * self.LEVELS))
        self.down = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 2 for _ in range(self.LEVELS))
        self.up = nn.ParameterList(torch.randn(2 * WIDTH, WIDTH) / 2 for _ in range(self.LEVELS))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.nets):
            kept = []
            for down in self.down:
                kept.append(x)
                x = (x @ down).tanh()
            for up in self.up:
                x = (torch.cat([x, kept.pop()], 1) @ up).tanh()
        return x


class SameInput(nn.Module):
    """h <- tanh(W·h + U·x), x the same at every step: n skips whose branches leave x by 1, 2, … n edges, so that the answer itself is quadratic."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.steps = nodes // 4
        self.state, self.entry = (nn.Parameter(torch.randn(WIDTH, WIDTH) / 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for _ in range(self.steps):
            h = (h @ self.state + x @ self.entry).tanh()
        return h


NETS: dict[str, Callable[[int], nn.Module]] = {"residual": Residual, "recurrent": Recurrent, "unet": UNets}
ASKED: dict[str, Callable[[int], nn.Module]] = {**NETS, "same-input": SameInput}


def measure(net: str, nodes: int) -> dict[str, float]:
    """Seconds of each phase, the nodes that came out, the skips found and the peak memory of this process in bytes."""
    torch.set_num_threads(1)
    model = ASKED[net](nodes)
    x = torch.randn(WIDTH, WIDTH).requires_grad_().clone()
    recorder = Recorder(model)
    began = time.perf_counter()
    with recorder:
        y = model(x)
    ran = time.perf_counter()
    gc.disable()
    tape = lift([y], Leaves(inputs=(("x", x),), parameters={p: name for name, p in model.named_parameters()}), recorder)
    lifted = time.perf_counter()
    skips = find_skips(tape.graph)
    highways = find_highways(skips)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "nodes": len(tape.graph.nodes),
        "skips": len(skips),
        "highways": len(highways),
        "forward": ran - began,
        "lift": lifted - ran,
        "search": ended - lifted,
        "peak": peak,
    }


def exponent(rows: list[dict[str, float]]) -> float:
    """The slope of log(lift + search) over log(nodes) by least squares."""
    points = [(math.log(r["nodes"]), math.log(r["lift"] + r["search"])) for r in rows]
    x, y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1e3,1e4,1e5,1e6")
    parser.add_argument("--nets", default=",".join(NETS), help=f"some of {', '.join(ASKED)}")
    parser.add_argument("--one", nargs=2, metavar=("NET", "NODES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]))))
        return
    print(f"torch {torch.__version__}, python {sys.version.split()[0]}, one thread")
    print("| net | nodes | skips | forward s | lift s | search s | µs a node | peak GiB |\n|---|--:|--:|--:|--:|--:|--:|--:|")
    for net in arguments.nets.split(","):
        rows = []
        for size in arguments.sizes.split(","):
            command = [sys.executable, __file__, "--one", net, str(int(float(size)))]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            each = (row["lift"] + row["search"]) / row["nodes"] * 1e6
            shown = f"{row['forward']:.2f} | {row['lift']:.2f} | {row['search']:.2f} | {each:.0f} | {row['peak'] / 2**30:.2f}"
            print(f"| {net} | {row['nodes']:,} | {row['skips']:,} | {shown} |", flush=True)
        if len(rows) > 1:
            print(f"{net}: exponent {exponent(rows):.3f}", flush=True)


if __name__ == "__main__":
    main()
