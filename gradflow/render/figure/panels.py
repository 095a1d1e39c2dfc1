"""The table of panels, which of them make a page, and how one is shown on axes, whoever's they are. The x axis is depth or, of loops, the call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradflow.records import Report
from gradflow.render.figure import PanelName, absent, calls, lambdas, layers, loops, shares, skips, trend, updates
from gradflow.render.figure.marks import CALLS, Drawn
from gradflow.render.figure.theme import Theme, dress

_LETTERS = 105  # of a line of a sentence
_FEW = 3  # places on the axis of depth
_LOW, _MANY = 0.6, 12  # the share of its height that a panel has for as few layers or less, and from how many layers on it has all of it


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: its height in inches at most, what draws it, and the sentence instead where the report has nothing to draw; empty where it has."""

    height: float
    draw: Callable[[Axes, Report, Theme], Drawn]
    absent: Callable[[Report], str]


PANELS: Mapping[PanelName, Panel] = {
    PanelName.CALLS: Panel(height=2.1, draw=calls.draw, absent=absent.of_calls),
    PanelName.TREND: Panel(height=1.1, draw=trend.draw, absent=absent.of_trend),
    PanelName.LAYERS: Panel(height=2.75, draw=layers.draw, absent=absent.of_layers),
    PanelName.SKIPS: Panel(height=0.95, draw=skips.arcs, absent=absent.of_skips),
    PanelName.LAMBDA: Panel(height=1.4, draw=lambdas.draw, absent=absent.of_lambdas),
    PanelName.SHARES: Panel(height=1.3, draw=shares.draw, absent=absent.of_shares),
    PanelName.UPDATES: Panel(height=1.4, draw=updates.draw, absent=absent.of_updates),
}


def wanted(report: Report) -> tuple[PanelName, ...]:
    """The panels of the whole page: all, but the absence of skips and of their λ is said once, that of loops not at all, and of skips that are all those of
    loops there are no panels over depth where they stand at fewer than three places: those of the calls say what these would."""
    left = {name for name in (PanelName.CALLS, PanelName.TREND) if PANELS[name].absent(report)}
    if not report.skips:
        left |= {PanelName.LAMBDA, PanelName.SHARES}
    elif len({(s.fork_depth, s.join_depth) for s in report.skips}) < _FEW and len(loops.skips(report)) == len(report.skips):
        left |= {PanelName.SKIPS, PanelName.LAMBDA, PanelName.SHARES}
    elif PANELS[PanelName.LAMBDA].absent(report):
        left |= {PanelName.SHARES}
    return tuple(name for name in PanelName if name not in left)


def height_of(name: PanelName, report: Report) -> float:
    """The height of a panel in inches: over the depth of a small net a flatter one shows all there is."""
    if name in (PanelName.CALLS, PanelName.TREND):
        return PANELS[name].height
    share = (len(report.layers) - _FEW) / (_MANY - _FEW)
    return PANELS[name].height * min(max(_LOW + (1 - _LOW) * share, _LOW), 1.0)


def show(axes: Axes, report: Report, name: PanelName, theme: Theme) -> Drawn:
    """Draws a panel, without the words around it; a sentence on axes that are switched off where there is nothing to draw."""
    panel = PANELS[name]
    if words := panel.absent(report):
        axes.axis("off")
        axes.text(0.0, 0.5, fill(words, _LETTERS), transform=axes.transAxes, color=theme.ink, va="center")
        return Drawn(title="")
    dress(axes, theme)
    drawn = panel.draw(axes, report, theme)
    if drawn.along == CALLS:
        call_axis(axes, loops.last_call(report))
    else:
        depth_axis(axes, skips.last_depth(report))
    return drawn


def depth_axis(axes: Axes, last: int) -> None:
    """The x axis of `last` layers."""
    _axis(axes, -0.5, last - 0.5)


def call_axis(axes: Axes, last: int) -> None:
    """The x axis of `last` calls and what follows them."""
    _axis(axes, 1.0, last + 1.0)


def _axis(axes: Axes, first: float, last: float) -> None:
    """The x axis from `first` to `last`, with ticks at whole numbers and a little room at the sides."""
    spare = max(0.3, 0.012 * (last - first))
    axes.set_xlim(first - spare, last + spare)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
