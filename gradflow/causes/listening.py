"""Hooks on the nodes of a tape, as a context manager around one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx

Grads = tuple[Tensor | None, ...]
Listener = Callable[[Grads, Grads], None]


@contextmanager
def listening(nodes: Iterable[tuple[fx.Node, Any]], listener: Callable[[fx.Node], Listener]) -> Iterator[None]:
    """Each node of the tape tells its listener what it sent along its edges and what had arrived at its outputs.

    Args:
        nodes: each node of the graph with the tape's.
        listener: makes that of a node of the graph.
    """
    handles: list[Any] = []
    try:
        for fx_node, node in nodes:
            handles.append(node.register_hook(listener(fx_node)))
        yield
    finally:
        for handle in handles:
            handle.remove()
