"""How the search grows with the tape: near-linearly, on loops, on deep networks and on long-range skips."""

import gc
import math
import time

import pytest
import torch
from torch import nn

from gradflow.recorder import Recorder
from gradflow.residual import find_highways, find_skips
from gradflow.tape import Leaves, lift

WIDTH = 2
LIMIT = 1.35  # a search that walks back to the beginning from every join has an exponent of 2


class Lstm(nn.Module):
    """A cell over the steps of a sequence, each taken by itself; the outputs are stacked."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.cell = steps, nn.LSTMCell(WIDTH, WIDTH)

    def forward(self, x):
        x = x.expand(self.steps, *x.shape)
        state, outputs = None, []
        for t in range(self.steps):
            state = self.cell(x[t], state)
            outputs.append(state[0])
        return torch.stack(outputs).mean(0)


class Chain(nn.Module):
    """x + W·tanh(W·x), one unit after the other, each also told the first value."""

    def __init__(self, units):
        super().__init__()
        self.units, self.weight = units, nn.Parameter(torch.randn(WIDTH, WIDTH) / 4)

    def forward(self, x):
        first = x
        for unit in range(self.units):
            x = x + (x @ self.weight).tanh() @ self.weight
            if unit % 10 == 9:
                x = x + 0.1 * first
        return x


class UNets(nn.Module):
    """U-Nets of five levels one after the other; a level's weights are the same in all of them."""

    def __init__(self, nets):
        super().__init__()
        self.nets = nets
        self.down = nn.ParameterList(torch.randn(WIDTH, WIDTH) / 2 for _ in range(5))
        self.up = nn.ParameterList(torch.randn(2 * WIDTH, WIDTH) / 2 for _ in range(5))

    def forward(self, x):
        down, up = list(self.down), list(self.up)
        for _ in range(self.nets):
            kept = []
            for weight in down:
                kept.append(x)
                x = (x @ weight).tanh()
            for weight in up:
                x = (torch.cat([x, kept.pop()], 1) @ weight).tanh()
        return x


def lifted(model):
    """The graph of one forward."""
    x = torch.randn(WIDTH, WIDTH).requires_grad_().clone()
    recorder = Recorder(model)
    with recorder:
        y = model(x)
    parameters = {parameter: name for name, parameter in model.named_parameters()}
    return lift([y], Leaves(inputs=(("x", x),), parameters=parameters), recorder).graph


def searched(graph):
    """Nodes, skips found, and processor seconds of the search for skips and highways."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        skips = find_skips(graph)
        find_highways(skips)
        return len(graph.nodes), len(skips), time.process_time() - began
    finally:
        gc.enable()


NETS = {"lstm": (Lstm, 300, lambda n: n - 1), "chain": (Chain, 500, lambda n: n + n // 10), "u-nets": (UNets, 40, lambda n: 5 * n)}


@pytest.mark.parametrize("name", NETS)
def test_ten_times_the_network(name):
    """All skips are found, and ten times the network takes little more than ten times as long. A machine that stalls is given two more tries."""
    net, small, planted = NETS[name]
    torch.manual_seed(0)
    graphs = lifted(net(small)), lifted(net(10 * small))
    for _ in range(3):
        few = min((searched(graphs[0]) for _ in range(2)), key=lambda run: run[2])
        many = searched(graphs[1])
        assert (few[1], many[1]) == (planted(small), planted(10 * small))
        exponent = math.log(many[2] / few[2]) / math.log(many[0] / few[0])
        if exponent < LIMIT:
            return
    raise AssertionError(f"nodes, skips, seconds: {few} -> {many}, exponent {exponent:.2f}")
