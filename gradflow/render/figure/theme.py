"""Colours and type, on light and on dark paper. Stages keep clear of the two colours of alarm, and stay apart for colour-blind eyes (a test says how far)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from gradflow.records import Kind, Severity, Verdict
from gradflow.render.figure import ThemeName


@dataclass(frozen=True, kw_only=True)
class Theme:
    """One paper and what is drawn on it.

    Attributes:
        stages: colours of the stages in the order of depth; OTHER stages are grey.
        kinds: a colour for each kind of skip.
        alarm: of what findings mark.
        verdict: the colour of the header, and of the type on it.
        middle: the colour of cos = 0, between those of opposed and aligned.
    """

    paper: str
    ink: str
    grey: str
    faint: str
    band: str
    stages: tuple[str, ...]
    kinds: Mapping[Kind, str]
    alarm: Mapping[Severity, str]
    verdict: Mapping[Verdict, tuple[str, str]]
    opposed: str
    middle: str
    aligned: str

    @property
    def is_dark(self) -> bool:
        """Whether the paper is darker than the ink."""
        return sum(to_rgb(self.paper)) < sum(to_rgb(self.ink))

    @property
    def cosines(self) -> LinearSegmentedColormap:
        """The colour of a cosine from −1 to 1."""
        return LinearSegmentedColormap.from_list("cosines", [self.opposed, self.middle, self.aligned])

    def sequence(self, share: float) -> tuple[float, float, float, float]:
        """A colour of viridis for a share of the way from 0 to 1: at both ends it can be told from the paper."""
        low, high = (0.25, 1.0) if self.is_dark else (0.0, 0.88)
        red, green, blue, opaque = matplotlib.colormaps["viridis"](low + (high - low) * share)
        return red, green, blue, opaque


_VERDICTS: Mapping[Verdict, tuple[str, str]] = {"sick": ("#B84A00", "white"), "warnings": ("#E69F00", "#1b1b1b"), "healthy": ("#00704F", "white")}
_LIGHT = Theme(
    paper="#ffffff", ink="#1b1b1b", grey="#5f6670", faint="#e3e5e8", band="#009E73",
    stages=("#0072B2", "#2DA45F", "#B66699", "#332288", "#90BA5B", "#6BC3F2"),
    kinds={
        "identity": "#0072B2", "scaled": "#56B4E9", "gated": "#AA4499", "projection": "#999933", "pooled": "#8a8f98",
        "norm": "#8C6D1F", "dropout": "#332288", "concat": "#009E73", "detached": "#1b1b1b", "streams": "#CC6677",
    },
    alarm={"error": "#D55E00", "warning": "#E69F00", "info": "#5f6670"}, verdict=_VERDICTS, opposed="#D55E00", middle="#b4b8bf", aligned="#0072B2",
)  # fmt: skip
_DARK = Theme(
    paper="#0d1117", ink="#e6edf3", grey="#9aa4b0", faint="#262c36", band="#2bbf8f",
    stages=("#4FA3E0", "#5FD0BA", "#C98094", "#8C86F0", "#D8D371", "#B5E0FF"),
    kinds={
        "identity": "#4FA3E0", "scaled": "#A6DAFF", "gated": "#D98BCB", "projection": "#C9C45A", "pooled": "#9aa4b0",
        "norm": "#C8A24A", "dropout": "#8C86F0", "concat": "#3CCB9A", "detached": "#e6edf3", "streams": "#F08A9B",
    },
    alarm={"error": "#FF7B2E", "warning": "#FFC24A", "info": "#9aa4b0"}, verdict=_VERDICTS, opposed="#FF7B2E", middle="#6b7480", aligned="#4FA3E0",
)  # fmt: skip
THEMES: Mapping[ThemeName, Theme] = {ThemeName.LIGHT: _LIGHT, ThemeName.DARK: _DARK}


def applied(theme: Theme) -> AbstractContextManager[None]:
    """matplotlib's settings while a picture is made: its own defaults, whatever the user's are, and afterwards the user's again."""
    return matplotlib.style.context(["default", {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9.0, "axes.labelsize": 8.5, "axes.labelcolor": theme.ink,
        "axes.titlesize": 10.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.fontsize": 8.0, "text.color": theme.ink,
        "figure.facecolor": theme.paper, "savefig.facecolor": theme.paper, "svg.fonttype": "none", "svg.hashsalt": "gradflow", "pdf.fonttype": 42,
    }])  # fmt: skip


def dress(axes: Axes, theme: Theme) -> None:
    """Paper, spines, ticks and grid of one panel."""
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.grey)
    axes.tick_params(colors=theme.grey, labelcolor=theme.ink)
    axes.grid(axis="x", color=theme.faint, linewidth=0.5)
    axes.set_axisbelow(True)
