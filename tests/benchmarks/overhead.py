"""What a profile costs: gradflow's forward and backward against plain ones, as ratios in one process, the sides alternating.

    python tests/benchmarks/overhead.py [--pairs 15] [--model resnet50|gpt2|all] [--device cpu|cuda] [--threads 2]

Each pair runs both sides once, in random order. Time is the process's CPU time (on CUDA: wall time after synchronising); memory is the peak that the side
adds to what the model itself holds, sampled by a thread from the resident set (on CUDA: the allocator's peak). Printed: median ratio and quartiles.
Wants torch and transformers only: ResNet-50 is built by torchvision or timm where they load.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401  declares torchvision's operators where its build cannot load them

from gradflow.observe import Settings, observe
from gradflow.subject import choose_loss, given_batch


def resnet50() -> tuple[nn.Module, object]:
    import torchvision

    return torchvision.models.resnet50(), torch.randn(8, 3, 160, 160)


def gpt2() -> tuple[nn.Module, object]:
    import transformers

    config = transformers.GPT2Config(use_cache=False)
    ids = torch.randint(0, config.vocab_size, (2, 256))
    return transformers.GPT2LMHeadModel(config), {"input_ids": ids, "labels": ids}


MODELS = {"resnet50": resnet50, "gpt2": gpt2}


class PeakMemory:
    """Peak of the process's anonymous memory while it is entered, in bytes, sampled every 2 ms."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self.start = self.peak = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.peak = max(self.peak, self._resident())

    @staticmethod
    def _resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def sides(model: nn.Module, inputs: object) -> dict[str, Callable[[], None]]:
    batch = given_batch(inputs)

    def plain() -> None:
        torch.manual_seed(0)
        output = model(*batch.args, **batch.kwargs)
        roots = choose_loss(loss=None, targets=None, model=model, seed=0)(output)
        torch.autograd.backward(roots.tensors, roots.cotangents)
        model.zero_grad(set_to_none=True)

    def profiled() -> None:
        observe(model, batch, choose_loss(loss=None, targets=None, model=model, seed=0), Settings())

    return {"plain": plain, "gradflow": profiled}


def measure(run: Callable[[], None], device: str) -> tuple[float, int]:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held, began = torch.cuda.memory_allocated(), time.perf_counter()
        run()
        torch.cuda.synchronize()
        return time.perf_counter() - began, torch.cuda.max_memory_allocated() - held
    with PeakMemory() as memory:
        began = time.process_time()
        run()
        seconds = time.process_time() - began
    return seconds, memory.peak - memory.start


def compare(name: str, pairs: int, device: str) -> None:
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model.to(device)
    inputs = {k: v.to(device) for k, v in inputs.items()} if isinstance(inputs, dict) else inputs.to(device)
    both = sides(model, inputs)
    for run in both.values():
        run()
    ratios: dict[str, list[float]] = {"time": [], "memory": []}
    plain_times = []
    for _ in range(pairs):
        order = random.sample(list(both), 2)
        found = {side: measure(both[side], device) for side in order}
        ratios["time"].append(found["gradflow"][0] / found["plain"][0])
        ratios["memory"].append(found["gradflow"][1] / found["plain"][1])
        plain_times.append(found["plain"][0])
    for what, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:10s} {what:6s} ratio median {middle:.3f}  quartiles {low:.3f} to {high:.3f}  pairs {pairs}  plain {statistics.median(plain_times):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    print(f"torch {torch.__version__}, {device}, {options.threads} threads")
    for name in MODELS if options.model == "all" else [options.model]:
        compare(name, options.pairs, options.device)


if __name__ == "__main__":
    main()
