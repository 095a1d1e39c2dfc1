"""In-place operations and views of what they write to; sums over the edges of a graph; sparse matrices."""

from itertools import product

import pytest
import torch
from torch import nn
from ways_oracle import D, Net, check, linear, rows

HALF, IDENTITY, MINUS = [("scaled", 0.5)], [("identity", 1.0)], [("scaled", -1.0)]
PICK = torch.arange(4)


def onto(view, of=lambda f: f):
    """A copy of x, of which `view` is added to in place."""

    def whole(x, f):
        y = x.clone()
        view(y).add_(of(f))
        return y

    return whole


def slice_add(x, f):
    y = x.clone()
    y[:, 4:] += f
    return y


def rows_add(x, f):
    y = x.clone()
    for i in range(4):
        y[i] += f[i]
    return y


def filled(x, f):
    y = torch.zeros_like(x)
    y[:] = x
    y += f
    return y


def data_write(x, f):
    y = x.clone()
    y.data.mul_(2)
    return y + f


WHOLE = {
    "add_": onto(lambda y: y),
    "the branch takes the skip": lambda x, f: f.clone().add_(x),
    "through a flat view": onto(lambda y: y.view(-1), lambda f: f.reshape(-1)),
    "through a transposed view": onto(lambda y: y.t(), lambda f: f.t()),
    "row by row": rows_add,
    "into zeros": filled,
    "copy_ and add_": lambda x, f: torch.empty_like(x).copy_(x).add_(f),
    "behind .data": data_write,
    "an in-place ReLU after it": lambda x, f: torch.relu_(x + f),
    "the sum of a list": lambda x, f: sum([x, f]),
    "a stack and its sum": lambda x, f: torch.stack([x, f]).sum(0),
    "torch.where on the branch": lambda x, f: x + torch.where(f > 0, f, 0.0),
    "a sub": lambda x, f: x - f,
}


@pytest.mark.parametrize("whole", WHOLE.values(), ids=WHOLE)
def test_sums_of_every_spelling(whole):
    """However it is written, x + f(x) is one identity with λ = 1."""
    check(lambda: Net(whole=whole), rows(), skips=IDENTITY)


PARTLY = {
    "y[:, 4:] += f": slice_add,
    "y[:, 4:].add_(f)": onto(lambda y: y[:, 4:]),
    "narrow": onto(lambda y: y.narrow(1, 0, 4)),
    "every other column": onto(lambda y: y[:, ::2]),
    "a square of it": onto(lambda y: y.view(4, 2, 4)[:, 1]),
}


@pytest.mark.parametrize("whole", PARTLY.values(), ids=PARTLY)
def test_a_branch_added_to_a_slice(whole):
    """The whole passes the sum as it is: an identity beside a branch that fills a part."""
    check(lambda: Net(whole=whole, f=lambda: linear(8, 4)), rows(), skips=IDENTITY)


OTHERS = {
    "f - x": (lambda x, f: f - x, MINUS),
    "mul_ before add_": (lambda x, f: x.clone().mul_(0.5).add_(f), HALF),
    "lerp": (lambda x, f: torch.lerp(x, f, 0.25), [("scaled", 0.75)]),
}


@pytest.mark.parametrize(("whole", "skips"), OTHERS.values(), ids=OTHERS)
def test_scaled_and_sliced_sums(whole, skips):
    """Factors, signs and slices on the skip are what λ and the kind say."""
    check(lambda: Net(whole=whole), rows(), skips=skips)


def slice_set(x, f):
    y = x.clone()
    y[:, :4] = f[:, :4]
    return y


WRITES = {
    "a slice assigned": slice_set,
    "index_put_": lambda x, f: x.clone().index_put_((PICK,), f, accumulate=True),
    "index_add": lambda x, f: x.index_add(0, PICK, f),
    "scatter_add": lambda x, f: x.scatter_add(0, PICK[:, None].expand(4, 8), f),
    "scatter_reduce": lambda x, f: x.scatter_reduce(0, PICK[:, None].expand(4, 8), f, "sum"),
    "masked_fill_": lambda x, f: x.clone().masked_fill_(PICK.repeat(2) > 1, 0.0) + f,
    "masked_scatter": lambda x, f: x.masked_scatter(PICK.repeat(2) > 1, f),
}


@pytest.mark.parametrize("whole", WRITES.values(), ids=WRITES)
def test_writes_by_index(whole):
    """Loss, gradients and the ledger of whatever is found are exact."""
    check(lambda: Net(whole=whole), rows())


EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])
NODES = rows(0, 6, 8)


def wide(target, messages):
    return target[:, None].expand_as(messages)


SUMS = {
    "index_add_": lambda zeros, target, m: zeros.index_add_(0, target, m),
    "scatter_add": lambda zeros, target, m: zeros.scatter_add(0, wide(target, m), m),
    "mean": lambda zeros, target, m: zeros.scatter_reduce(0, wide(target, m), m, "mean"),
    "amax": lambda zeros, target, m: zeros.scatter_reduce(0, wide(target, m), m, "amax", include_self=False),
}


class Messages(nn.Module):
    def __init__(self, gather):
        super().__init__()
        self.stem, self.f, self.head, self.gather = linear(), linear(), linear(), gather

    def forward(self, x, edge_index):
        source, target = edge_index
        x = self.stem(x)
        return self.head(0.5 * x + self.gather(torch.zeros_like(x), target, torch.tanh(self.f(x[source]))))


@pytest.mark.parametrize("gather", SUMS.values(), ids=SUMS)
def test_messages_along_edges(gather):
    """However they are gathered, what is sent is the branch."""
    check(lambda: Messages(gather), (NODES, EDGES), skips=HALF)


def adjacency(layout):
    matrix = torch.zeros(6, 6, dtype=D)
    matrix[EDGES[0], EDGES[1]] = 0.5
    return matrix.to_sparse_coo() if layout == "coo" else matrix.to_sparse_csr()


class Multiplied(nn.Module):
    """A sparse matrix that is a buffer, a plain attribute, a parameter or an input."""

    def __init__(self, layout, place):
        super().__init__()
        self.stem, self.f, self.head = linear(), linear(), linear()
        if place == "buffer":
            self.register_buffer("matrix", adjacency(layout))
        elif place == "attribute":
            self.matrix = adjacency(layout)
        elif place == "parameter":
            self.matrix = nn.Parameter(adjacency(layout))

    def forward(self, x, matrix=None):
        x = self.stem(x)
        matrix = self.matrix if matrix is None else matrix
        return self.head(0.5 * x + torch.tanh(torch.sparse.mm(matrix, self.f(x))))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:Sparse invariant checks")
@pytest.mark.parametrize(("layout", "place"), [*product(["coo", "csr"], ["buffer", "attribute", "input"]), ("coo", "parameter")])
def test_sparse_matrices(layout, place):
    """Wherever it lies, it is kept, put back and read by its values."""
    check(lambda: Multiplied(layout, place), (NODES, adjacency(layout)) if place == "input" else NODES, skips=HALF)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_sparse_buffer_that_the_forward_writes():
    """Its values come back, bit for bit."""

    class Writing(Multiplied):
        def forward(self, x):
            self.matrix.mul_(2)
            return super().forward(x)

    check(lambda: Writing("coo", "buffer"), NODES, skips=HALF)
