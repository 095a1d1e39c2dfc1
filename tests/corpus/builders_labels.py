"""Networks as their papers state them, and small models of libraries that have layers rather than models: what `labels/others.toml` counts."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def x_transformer(depth: int = 3, **options) -> nn.Module:
    """A causal language model of x_transformers over 100 tokens: tokens [batch, <= 16] -> logits. `options` go to its Decoder."""
    library = importlib.import_module("x_transformers")
    layers = library.Decoder(dim=32, depth=depth, heads=2, attn_dim_head=16, **options)
    return library.TransformerWrapper(num_tokens=100, max_seq_len=16, attn_layers=layers)


def segmenter(name: str, encoder: str = "resnet18") -> nn.Module:
    """A network of segmentation_models_pytorch with random weights: images [batch, 3, h, w] -> masks [batch, 1, h, w]. Its default would download."""
    return getattr(importlib.import_module("segmentation_models_pytorch"), name)(encoder_name=encoder, encoder_weights=None)


class GraphNet(nn.Module):
    """A linear stem, `layers` called with the edges (and with the stem's output where `initial`), a linear head: nodes [nodes, 8] -> [nodes, 4]."""

    def __init__(self, layers: Sequence[nn.Module], widths: tuple[int, int], initial: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(8, widths[0])
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(widths[1], 4)
        self.initial = initial

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = first = functional.relu(self.stem(x))
        for layer in self.layers:
            x = functional.relu(layer(x, first, edge_index)) if self.initial else layer(x, edge_index)
        return self.head(x)


def deep_gcn(block: str, layers: int = 3) -> nn.Module:
    """DeepGCNs (Li et al. 2019) of torch_geometric: "res+", "res" or "dense" layers around a GCNConv."""
    library = importlib.import_module("torch_geometric.nn")
    widths = [16 + 16 * layer * (block == "dense") for layer in range(layers + 1)]
    units = [library.DeepGCNLayer(library.GCNConv(width, 16), nn.LayerNorm(16), nn.ReLU(), block=block) for width in widths[:-1]]
    return GraphNet(units, (16, widths[-1]))


def gcnii(layers: int = 3) -> nn.Module:
    """GCNII (Chen et al. 2020), eq. 5: ((1 - a) P x + a x0)((1 - b) I + b W), then ReLU."""
    library = importlib.import_module("torch_geometric.nn")
    return GraphNet([library.GCN2Conv(16, alpha=0.1, theta=0.5, layer=layer + 1) for layer in range(layers)], (16, 16), initial=True)


class GatedGraphUnit(nn.Module):
    """x + ReLU(norm(gated convolution of x)): the residual gated graph network of Bresson and Laurent 2017."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = importlib.import_module("torch_geometric.nn").ResGatedGraphConv(width, width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + functional.relu(self.norm(self.conv(x, edge_index)))


def gated_gcn(layers: int = 2) -> nn.Module:
    """A stack of GatedGraphUnits."""
    return GraphNet([GatedGraphUnit(16) for _ in range(layers)], (16, 16))


def conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class UNet(nn.Module):
    """Ronneberger et al. 2015, figure 1: two convolutions a level, max pooling down, transposed convolutions up, and the level's features concatenated."""

    def __init__(self, levels: int = 3, width: int = 8) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(nn.Sequential(conv(inside, outside), conv(outside, outside)) for inside, outside in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * outside, outside, 2, 2) for outside in reversed(widths[:-1]))
        self.merge = nn.ModuleList(nn.Sequential(conv(2 * outside, outside), conv(outside, outside)) for outside in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([skip, up(x)], 1))
        return self.head(x)


class DenseNet(nn.Module):
    """Huang et al. 2017, one dense block: x becomes [x, f(x)], `layers` times."""

    def __init__(self, layers: int = 4, width: int = 8, growth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        wide = [width + growth * layer for layer in range(layers)]
        self.layers = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(inside), nn.ReLU(), nn.Conv2d(inside, growth, 3, padding=1)) for inside in wide)
        self.head = nn.Linear(width + growth * layers, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x.mean((2, 3)))


class RepVGGBlock(nn.Module):
    """Ding et al. 2021, figure 2b: BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x), then ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.point = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.wide(x) + self.point(x) + self.norm(x))


def repvgg(blocks: int = 3, width: int = 8) -> nn.Module:
    """A stem, RepVGG blocks of one width, pooling and a head: images [batch, 3, h, w] -> [batch, 5]."""
    return _image_net([RepVGGBlock(width) for _ in range(blocks)], width)


def _image_net(blocks: Sequence[nn.Module], width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


class SqueezeExcite(nn.Module):
    """Hu et al. 2017, eqs. 2 to 4: x times sigmoid(W2 ReLU(W1 pool(x))), and no sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.ReLU(), nn.Conv2d(4, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def squeeze_excite(blocks: int = 2, width: int = 8) -> nn.Module:
    """Convolutions with squeeze-excite products and no shortcut."""
    return _image_net([nn.Sequential(conv(width, width), SqueezeExcite(width)) for _ in range(blocks)], width)


class FeaturePyramid(nn.Module):
    """Lin et al. 2016, figure 3: three strided stages; each level is its lateral 1x1 convolution plus the upsampled level above, and an output."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stages = nn.ModuleList(conv(inside, width, 2) for inside in (3, width, width))
        self.lateral = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in self.stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        merged = [levels[-1]]
        for level in reversed(levels[:-1]):
            merged.append(level + functional.interpolate(merged[-1], scale_factor=2.0))
        return merged


class X0Transformer(nn.Module):
    """Feed-forward blocks wired as in modded-nanoGPT: all but the first start at a*x + b*x0, and a late one adds w times its early partner's output."""

    def __init__(self, pairs: int = 2, width: int = 16) -> None:
        super().__init__()
        count = 2 * pairs + 1
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(count))
        self.mix = nn.Parameter(torch.tensor([[1.0, 0.1]]).repeat(count, 1))
        self.weight = nn.Parameter(torch.ones(pairs))
        self.embed, self.head = nn.Embedding(50, width), nn.Linear(width, 50)
        self.pairs = pairs

    def forward(self, ids: Tensor) -> Tensor:
        x = x0 = self.embed(ids)
        skips: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index > self.pairs:
                x = x + self.weight[index - self.pairs - 1] * skips.pop()
            if index:
                x = self.mix[index, 0] * x + self.mix[index, 1] * x0
            x = x + block(x)
            if index < self.pairs:
                skips.append(x)
        return self.head(x)


class Adapted(nn.Module):
    """Feed-forward blocks on [batch, width] whose branch ends in a skip of its own at the block's sum: an adapter's (post-norm) or LoRA's (pre-norm)."""

    def __init__(self, how: str = "adapter", depth: int = 3, width: int = 16) -> None:
        super().__init__()
        self.how, self.head = how, nn.Linear(width, 3)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm": nn.LayerNorm(width), "up": nn.Linear(width, 32), "down": nn.Linear(32, width),
                "first": nn.Linear(width if how == "adapter" else 32, 4), "last": nn.Linear(4, width),
            })
            for _ in range(depth)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.how == "adapter":
                o = block["down"](torch.relu(block["up"](x)))
                x = block["norm"](x + (o + block["last"](torch.relu(block["first"](o)))))
            else:
                h = torch.relu(block["up"](block["norm"](x)))
                x = x + (block["down"](h) + block["last"](block["first"](h)))
        return self.head(x)


class Recurrent(nn.Module):
    """A cell unrolled by hand over [batch, steps, 8]; the head sees the last hidden state."""

    def __init__(self, cell: str = "GRU", width: int = 16) -> None:
        super().__init__()
        self.cell = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell}[cell](8, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def _branch(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class Reversible(nn.Module):
    """RevNet (Gomez et al. 2017), both streams starting from one x: a <- a + F(b), b <- b + G(a). The head sees b."""

    def __init__(self, blocks: int = 2, width: int = 16) -> None:
        super().__init__()
        self.first = nn.ModuleList(_branch(width) for _ in range(blocks))
        self.second = nn.ModuleList(_branch(width) for _ in range(blocks))
        self.stem, self.head = nn.Linear(8, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = b = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            a = a + first(b)
            b = b + second(a)
        return self.head(b)


class Joins(nn.Module):
    """One residual sum in each of torch's spellings, on [batch, 8]: +, -, +=, addmm, addcmul, stack and sum, and lerp, whose skip is 1 - 0.3."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, width), nn.Linear(width, 3)
        self.branch = nn.ModuleList(_branch(width) for _ in range(6))
        self.inner, self.matrix, self.scale = nn.Linear(width, width), nn.Parameter(torch.randn(width, width) / 4), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        plus, minus, inplace, scaled, stacked, mixed = self.branch
        x = torch.tanh(self.stem(x))
        x = torch.tanh(x + plus(x))
        x = torch.tanh(x - minus(x))
        y = inplace(x)
        y += x
        x = torch.tanh(y)
        x = torch.tanh(torch.addmm(x, functional.relu(self.inner(x)), self.matrix))
        x = torch.tanh(torch.addcmul(x, self.scale, scaled(x)))
        x = torch.tanh(torch.stack([x, stacked(x)]).sum(0))
        return self.head(torch.lerp(x, mixed(x), 0.3))


class DetachedSkips(nn.Module):
    """Residual units whose skip is there in the forward and cut in the backward: x.detach() + F(x)."""

    def __init__(self, blocks: int = 3, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(_branch(width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x.detach() + block(x)
        return self.head(x)
