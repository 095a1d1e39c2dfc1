"""A history as grids: one row a layer, one column a profiled step. Numbers alone, no figure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from gradflow.records import GRAVITY, VERDICTS, Entry, History

Grid = npt.NDArray[np.float64]
Marks = npt.NDArray[np.int8]
WARNING, ERROR = GRAVITY["warning"], GRAVITY["error"]


def decades(rows: Sequence[Sequence[float | None]]) -> Grid:
    """log10 of each value: −inf for 0, nan for None; one column for each of `rows`."""
    logs = [[math.nan if v is None else -math.inf if v == 0 else math.log10(abs(v)) for v in row] for row in rows]
    return np.array(logs, dtype=float).reshape(len(rows), -1).T


def marks(history: History) -> Marks:
    """The gravest finding at each layer and step, a parameter's counting as its layer's: 0, `WARNING` or `ERROR`; [layers, steps]."""
    index = {layer.name: i for i, layer in enumerate(history.layers)}
    found = np.zeros((len(index), len(history.entries)), dtype=np.int8)
    for column, entry in enumerate(history.entries):
        for noted in entry.findings:
            row = next((index[name] for name in _owners(noted.where) if name in index), None)
            if row is not None:
                found[row, column] = max(int(found[row, column]), GRAVITY[noted.severity])
    return found


def _owners(where: str) -> Iterator[str]:
    """The name itself, and those of the modules that hold it, the innermost first."""
    while where:
        yield where
        where = where.rpartition(".")[0]


def verdicts(entries: Sequence[Entry]) -> Marks:
    """The verdict of each step by its place in `VERDICTS`; [1, steps]."""
    return np.array([[VERDICTS.index(entry.verdict) for entry in entries]], dtype=np.int8)


def folded(grid: Grid, rows: int, columns: int) -> Grid:
    """`grid` with at most so many rows and columns, of blocks as equal as can be: of each the value farthest from 0, what is measured before what is not."""
    return np.array([[_farthest(block) for block in line] for line in _blocks(grid, rows, columns)])


def gravest(grid: Marks, rows: int, columns: int) -> Marks:
    """The same of marks: of each block the gravest."""
    return np.array([[block.max() for block in line] for line in _blocks(grid, rows, columns)], dtype=np.int8)


def _blocks(grid: npt.NDArray[np.generic], rows: int, columns: int) -> Iterator[Iterator[npt.NDArray[np.generic]]]:
    for line in np.array_split(grid, min(rows, grid.shape[0]), axis=0):
        yield iter(np.array_split(line, min(columns, grid.shape[1]), axis=1))


def _farthest(block: npt.NDArray[np.generic]) -> float:
    measured = block[~np.isnan(block)]
    return float(measured[np.abs(measured).argmax()]) if measured.size else math.nan


def gaps(curves: Sequence[Sequence[float | None]]) -> list[tuple[int, int]]:
    """First and last column of each run in which none of the curves has a value."""
    columns = enumerate(zip(*curves, strict=True))
    runs = [list(run) for silent, run in groupby(columns, key=lambda column: all(v is None for v in column[1])) if silent]
    return [(run[0][0], run[-1][0]) for run in runs]


def dark(zeros: npt.NDArray[np.bool_]) -> tuple[range, range] | None:
    """Rows and columns of the largest rectangle of zeros that reaches the last column; None where there is none."""
    reach = [next((i for i, zero in enumerate(reversed(row)) if not zero), len(row)) for row in zeros.tolist()]  # how many columns back from the last
    best, area = (0, 0, 0), 0
    begun: list[tuple[int, int]] = []  # (first row, width) of the rectangles that may still grow, narrow ones first
    for row, wide in enumerate([*reach, 0]):
        top = row
        while begun and begun[-1][1] >= wide:
            top, width = begun.pop()
            if width * (row - top) > area:
                best, area = (top, row, width), width * (row - top)
        begun.append((top, wide))
    return (range(best[0], best[1]), range(zeros.shape[1] - best[2], zeros.shape[1])) if area else None


def is_even(steps: Sequence[int]) -> bool:
    """Whether the steps stand at equal distances, so that the axis of columns is one of steps."""
    return len(list(groupby(np.diff(steps)))) <= 1
