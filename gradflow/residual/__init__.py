"""Residual paths of a graph: torch.fx.Graph -> skips and highways. Touches no tensor."""

from gradflow.residual.paths import HighwayPath, SkipPath, Stretch
from gradflow.residual.search import find_skips
from gradflow.residual.trunk import find_highways

__all__ = ["HighwayPath", "SkipPath", "Stretch", "find_highways", "find_skips"]
