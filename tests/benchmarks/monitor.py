"""What watching a training run costs: a loop with `gradflow.Monitor(every=100)` against the same loop without, as ratios in one process.

    python tests/benchmarks/monitor.py [--rounds 9] [--steps 100] [--model digits|mlp|gpt|resnet20|all] [--device cpu|cuda] [--threads 1]

Each round runs the loop without twice and the loop with once, in random order, from the same weights: so many steps, of which the first is sampled. Time is
the process's CPU time (on CUDA: wall time after synchronising). Printed: the median ratio with its quartiles, beside that of the two loops without, which is
the noise; what the profile of a sampled step takes against a plain step, the two alternating; and what `observe` costs on a step that is not sampled.
`mlp` is the worst case: a step of a millisecond.
"""

from __future__ import annotations

import argparse
import copy
import random
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import gradflow
from gradflow import zoo

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "train_digits.py"
Made = tuple[nn.Module, torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]]


def digits() -> Made:
    return runpy.run_path(str(EXAMPLE))["Digits"](), torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,)), cross_entropy


def mlp() -> Made:
    return zoo.residual_mlp(6, 64), torch.randn(64, 64), torch.randint(0, 10, (64,)), cross_entropy


def gpt() -> Made:
    model = zoo.pre_ln_transformer(blocks=6, width=128, vocab=512, causal=True)
    ids = torch.randint(0, 512, (8, 128))
    return model, ids, ids, lambda output, targets: cross_entropy(output.flatten(0, 1), targets.flatten())


def resnet20() -> Made:
    return zoo.preact_resnet(20), torch.randn(8, 3, 32, 32), torch.randint(0, 10, (8,)), cross_entropy


MODELS = {"digits": digits, "mlp": mlp, "gpt": gpt, "resnet20": resnet20}


def loop(made: Made, steps: int, watched: bool) -> None:
    """A training loop on copies of the weights; the optimiser is plain SGD, which leaves most of the time to the model."""
    model, x, y, loss_fn = copy.deepcopy(made[0]), *made[1:]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    monitor = gradflow.Monitor(model, every=steps) if watched else None
    for _ in range(steps):
        if monitor is not None:
            monitor.observe(x, y, loss_fn)
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()


def one(made: Made) -> tuple[Callable[[], None], Callable[[], object]]:
    """One plain step, and the profile that a sampled one adds, to be run again and again."""
    model, x, y, loss_fn = copy.deepcopy(made[0]), *made[1:]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    monitor = gradflow.Monitor(model, every=1)

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()

    return step, lambda: monitor.observe(x, y, loss_fn)


def seconds(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - began
    began = time.process_time()
    run()
    return time.process_time() - began


def compare(name: str, rounds: int, steps: int, device: str) -> None:
    torch.manual_seed(0)
    model, x, y, loss_fn = MODELS[name]()
    made = (model.to(device), x.to(device), y.to(device), loss_fn)
    for watched in (False, True):
        loop(made, 2, watched)
    found: dict[str, list[float]] = {"without": [], "again": [], "with": []}
    for _ in range(rounds):
        for kind in random.sample(list(found), 3):
            found[kind].append(seconds(lambda watched=kind == "with": loop(made, steps, watched), device))
    step, sampled = one(made)
    extra = []
    for _ in range(3 * rounds):
        usual = seconds(step, device)
        extra.append(seconds(sampled, device) / usual)
    print(
        f"{name:9s} plain step {1e3 * statistics.median(found['without']) / steps:.2f} ms  loop with / without: {ratios(found, 'with')}"
        f"  without / without: {ratios(found, 'again')}  a profile / a plain step: {spread(extra)}",
        flush=True,
    )


def ratios(found: dict[str, list[float]], kind: str) -> str:
    return spread([a / b for a, b in zip(found[kind], found["without"], strict=True)])


def spread(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def idle(calls: int = 100_000) -> None:
    """The time of `observe` where nothing is sampled."""
    monitor = gradflow.Monitor(nn.Linear(2, 2), every=10**9)
    monitor.observe(torch.zeros(1, 2))
    x = torch.zeros(1, 2)
    began = time.process_time()
    for _ in range(calls):
        monitor.observe(x, x, cross_entropy)
    print(f"observe on a step that is not sampled: {1e6 * (time.process_time() - began) / calls:.2f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"cpu, {options.threads} threads"
    print(f"torch {torch.__version__}, {device}; every {options.steps} steps, {options.rounds} rounds; medians, quartiles in brackets")
    for name in MODELS if options.model == "all" else [options.model]:
        compare(name, options.rounds, options.steps, options.device)
    idle()


if __name__ == "__main__":
    main()
