"""Graphs: x + (what came along the edges), written three ways."""

import torch
from parts import Network
from torch import Tensor, nn

edges = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


class Scattered(Network):
    """Messages are gathered from the edges' sources and added up at their targets."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        x = self.stem(x)
        for block in self.blocks:
            x = x + torch.zeros_like(x).index_add_(0, target, block.f(x[source]).tanh())
        return self.head(x)


class Sparse(Network):
    """A sparse adjacency matrix, kept as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.shape[1]), (6, 6), check_invariants=True).coalesce())

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + torch.sparse.mm(self.adjacency, block.f(x)).tanh()
        return self.head(x)


class Convolved(Network):
    """torch_geometric's graph convolutions."""

    def __init__(self, kind: str = "GCNConv") -> None:
        import torch_geometric.nn

        super().__init__()
        self.blocks = nn.ModuleList(getattr(torch_geometric.nn, kind)(8, 8) for _ in range(2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x, edge_index).tanh()
        return self.head(x)


inputs = (torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), edges)
