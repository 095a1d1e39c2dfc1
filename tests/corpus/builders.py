"""Builders for what the command line cannot say: targets like `tests.corpus.builders:NAME`, with --arg for their arguments."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from gradflow.subject import load


class Detector(nn.Module):
    """A torchvision detector in training, as a function of one batch of images: the boxes that it is to find are fixed.

    Args:
        images: [batch, 3, height, width].
    Returns:
        its dict of losses.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        height, width = images.shape[-2:]
        boxes = images.new_tensor([[0.1 * width, 0.1 * height, 0.6 * width, 0.7 * height], [0.4 * width, 0.3 * height, 0.9 * width, 0.9 * height]])
        masks = torch.zeros(2, height, width, dtype=torch.uint8)
        masks[:, height // 3 : height // 2, width // 3 : width // 2] = 1
        target = {
            "boxes": boxes,
            "labels": torch.tensor([1, 2]),
            "masks": masks,
            "keypoints": torch.cat([boxes[:, None, :2], boxes[:, None, :1] * 0 + 1], dim=2),
        }
        return self.detector(list(images), [target] * len(images))


def detector(name: str) -> nn.Module:
    """A torchvision detector with images of 128 pixels and few classes."""
    from torchvision.models import get_model

    settings: dict[str, Any] = {"min_size": 128, "max_size": 128}
    if name.startswith("keypoint"):
        settings["num_keypoints"] = 1
    if name.startswith("ssd"):
        settings = {}  # it has a fixed size
    return Detector(get_model(name, weights=None, weights_backbone=None, num_classes=3, **settings))


def optical_flow(name: str) -> nn.Module:
    """RAFT with two updates of the flow rather than twelve."""
    from torchvision.models import get_model

    return TwoUpdates(get_model(name, weights=None))


class TwoUpdates(nn.Module):
    """RAFT called with `num_flow_updates=2`.

    Args:
        first, second: [batch, 3, height, width], of at least 128 pixels each way.
    """

    def __init__(self, raft: nn.Module) -> None:
        super().__init__()
        self.raft = raft

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
        return self.raft(first, second, num_flow_updates=2)


class PatchTower(nn.Module):
    """The vision tower of a language model on one picture of four by four patches.

    Args:
        patches: [16, numbers of a patch].
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("grid", torch.tensor([[1, 4, 4]]))

    def forward(self, patches: torch.Tensor) -> Any:
        return self.tower(patches, self.grid)


def vision_tower(model_type: str, fields: dict[str, Any]) -> nn.Module:
    """The transformers model of `hf:MODEL_TYPE` with these fields of its config."""
    return PatchTower(load(f"hf:{model_type}", arguments=fields).model)


def x_transformer(depth: int = 2, dim: int = 32, **options: Any) -> nn.Module:
    """A causal x-transformer over a vocabulary of 64; `options` are those of its Decoder.

    Args of its forward: tokens [batch, 16].
    """
    x = importlib.import_module("x_transformers")
    return x.TransformerWrapper(num_tokens=64, max_seq_len=32, attn_layers=x.Decoder(dim=dim, depth=depth, heads=2, attn_dim_head=16, **options))


_NODES, _WIDTH = 32, 16


class GraphNetwork(nn.Module):
    """A graph network of three layers on a fixed random graph of 32 nodes.

    Args:
        nodes: [32, 8].
    Returns:
        [32, 4]
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        pyg = importlib.import_module("torch_geometric.nn")
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("edges", torch.randint(_NODES, (2, 4 * _NODES), generator=generator))
        self.kind, self.enter, self.leave = kind, nn.Linear(8, _WIDTH), nn.Linear(_WIDTH, 4)
        self.layers = nn.ModuleList(_graph_layer(pyg, kind, i) for i in range(3))
        if kind == "deep_dense":
            self.leave = nn.Linear(8 * _WIDTH, 4)

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        x = first = self.enter(nodes)
        for layer in self.layers:
            x = layer(x, first, self.edges) if self.kind == "gcn2" else layer(x, self.edges)
        return self.leave(x)


def _graph_layer(pyg: Any, kind: str, i: int) -> nn.Module:
    width = _WIDTH * 2**i if kind == "deep_dense" else _WIDTH
    if kind.startswith("deep_"):
        return pyg.DeepGCNLayer(pyg.GCNConv(width, width), nn.LayerNorm(width), nn.ReLU(), block=kind.removeprefix("deep_"))
    makers: dict[str, Any] = {
        "gcn2": lambda: pyg.GCN2Conv(_WIDTH, alpha=0.1, theta=0.5, layer=i + 1),
        "res_gated": lambda: pyg.ResGatedGraphConv(_WIDTH, _WIDTH),
        "gat_residual": lambda: pyg.GATConv(_WIDTH, _WIDTH // 2, heads=2, residual=True),
        "gatv2_residual": lambda: pyg.GATv2Conv(_WIDTH, _WIDTH // 2, heads=2, residual=True),
        "gps": lambda: pyg.GPSConv(_WIDTH, pyg.GINConv(nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH))), heads=2),
        "transformer": lambda: pyg.TransformerConv(_WIDTH, _WIDTH // 2, heads=2, beta=True),
    }
    return makers[kind]()


def graph_network(kind: str) -> nn.Module:
    """The graph network of that name: a stack of one layer, or one of the library's own models on a fixed graph."""
    models = importlib.import_module("torch_geometric.nn.models")
    jumping, _, mode = kind.partition("_")
    if jumping == "jumping":
        return OnFixedGraph(models.GCN(8, _WIDTH, num_layers=3, out_channels=4, jk=mode))
    if kind == "graph_unet":
        return OnFixedGraph(models.GraphUNet(8, _WIDTH, 4, depth=2))
    simple = {"gin": models.GIN, "sage": models.GraphSAGE, "edge": models.EdgeCNN}
    return OnFixedGraph(simple[kind](8, _WIDTH, num_layers=3, out_channels=4)) if kind in simple else GraphNetwork(kind)


class OnFixedGraph(nn.Module):
    """A graph network called with a fixed random graph of 32 nodes.

    Args:
        nodes: [32, 8].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("edges", torch.randint(_NODES, (2, 4 * _NODES), generator=torch.Generator().manual_seed(0)))

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        return self.network(nodes, self.edges)


class HyperConnected(nn.Module):
    """Blocks of a norm and an MLP joined by hyper-connections, the reference implementation's.

    Args:
        x: [batch, tokens, 16].
    """

    def __init__(self, file: str, streams: int, blocks: int) -> None:
        super().__init__()
        library = importlib.import_module(f"hyper_connections.{file}")
        connect, self.expand, self.reduce = library.get_init_and_expand_reduce_stream_functions(streams)
        branches = (nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(blocks))
        self.blocks = nn.ModuleList(connect(dim=16, branch=branch, layer_index=i) for i, branch in enumerate(branches))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.expand(x)
        for block in self.blocks:
            x = block(x)
        return self.reduce(x)


def hyper_connected(file: str = "hyper_connections", streams: int = 4, blocks: int = 2) -> nn.Module:
    """Hyper-connections of `hyper_connections.FILE`; one stream is a plain residual network."""
    return HyperConnected(file, streams, blocks)
