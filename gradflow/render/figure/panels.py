"""The table of panels, and how one is shown on axes, whoever's they are. Depth is the x axis of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradflow.records import Report
from gradflow.render.figure import PanelName, lambdas, layers, shares, skips, updates
from gradflow.render.figure.marks import Drawn
from gradflow.render.figure.theme import Theme, dress

DEPTH = "depth: layers in the order of the forward pass"
_NO_LAYER = "No layer was found."
_NO_SKIP = "No skip connection was found: the gradient has no way around any layer."
_NO_MATRIX = "No layer has a matrix whose updates could be compared."


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: its height in inches, what draws it, and what to say instead where `has` says that the report has nothing to draw."""

    height: float
    draw: Callable[[Axes, Report, Theme], Drawn]
    has: Callable[[Report], bool]
    otherwise: str


def _skips(report: Report) -> bool:
    return bool(report.skips)


PANELS: Mapping[PanelName, Panel] = {
    PanelName.LAYERS: Panel(height=2.75, draw=layers.draw, has=lambda r: bool(r.layers), otherwise=_NO_LAYER),
    PanelName.SKIPS: Panel(height=0.95, draw=skips.arcs, has=_skips, otherwise=_NO_SKIP),
    PanelName.LAMBDA: Panel(height=1.4, draw=lambdas.draw, has=_skips, otherwise=_NO_SKIP),
    PanelName.SHARES: Panel(height=1.3, draw=shares.draw, has=_skips, otherwise=_NO_SKIP),
    PanelName.UPDATES: Panel(height=1.4, draw=updates.draw, has=lambda r: bool(updates.matrices(r)), otherwise=_NO_MATRIX),
}


def wanted(report: Report) -> tuple[PanelName, ...]:
    """The panels of the whole page: all, but the absence of skips is said once."""
    return tuple(name for name in PanelName if report.skips or name not in (PanelName.LAMBDA, PanelName.SHARES))


def show(axes: Axes, report: Report, name: PanelName, theme: Theme) -> Drawn:
    """Draws a panel, without the words around it; a sentence on axes that are switched off where there is nothing to draw."""
    panel = PANELS[name]
    if not panel.has(report):
        axes.axis("off")
        axes.text(0.0, 0.5, panel.otherwise, transform=axes.transAxes, color=theme.ink, va="center")
        return Drawn(title="")
    dress(axes, theme)
    drawn = panel.draw(axes, report, theme)
    depth_axis(axes, last_depth(report))
    return drawn


def last_depth(report: Report) -> int:
    """How many layers the axis of depth has."""
    return max([len(report.layers), *(s.join_depth for s in report.skips)])


def depth_axis(axes: Axes, last: int) -> None:
    """The x axis of `last` layers."""
    spare = max(0.3, 0.012 * last)
    axes.set_xlim(-0.5 - spare, last - 0.5 + spare)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
