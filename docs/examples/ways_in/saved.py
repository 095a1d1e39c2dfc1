"""The network of parts.py as files: `python saved.py FOLDER` writes an export, two TorchScript files and a pickle. And compiled, as a model of this file."""

import sys
from pathlib import Path

import torch
from parts import Network
from torch import nn


def compiled() -> nn.Module:
    return torch.compile(Network())


def write(folder: Path) -> None:
    torch.manual_seed(0)
    network, x = Network(), torch.randn(4, 8)
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(network, (x,), strict=False), folder / "network.pt2")
    torch.jit.script(network).save(folder / "scripted.pt")
    torch.jit.trace(network, x).save(folder / "traced.pt")
    torch.save(network, folder / "pickled.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
