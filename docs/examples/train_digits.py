"""Trains a residual net on scikit-learn's digits and watches its gradient: at a learning rate of 0.3 it learns, at 2.5 its units die.

python docs/examples/train_digits.py --rate 2.5 --save digits.png
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import gradflow


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.outer(torch.relu(self.inner(x))))


class Digits(nn.Module):
    def __init__(self, width: int = 32, blocks: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))


def train(rate: float, steps: int, every: int) -> gradflow.Monitor:
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1, torch.tensor(digits.target)
    model = Digits()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    with gradflow.Monitor(model, every=every, keep="worst") as monitor:
        for _ in range(steps):
            chosen = torch.randint(len(images), (64,))
            x, y = images[chosen], labels[chosen]
            monitor.observe(x, y, cross_entropy)
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    right = (model(images).argmax(1) == labels).double().mean()
    print(f"learning rate {rate:g}: {right:.0%} right")
    return monitor


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--save", default="", help="a .png, .svg, .pdf or .json file")
    options = parser.parse_args()
    monitor = train(options.rate, options.steps, options.every)
    for turn in monitor.history.turns:
        print(f"step {turn.step}: {turn.verdict}", f"{turn.finding.rule}: {turn.finding.message}" if turn.finding else "")
    if options.save:
        monitor.save(options.save)
