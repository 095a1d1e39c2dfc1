"""A Report as one picture: what is wrong with the model, and where. Uses matplotlib's objects, never pyplot, so it leaves no global state behind."""

from __future__ import annotations

from io import BytesIO

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase, RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from gradflow.records import Report
from gradflow.render import png_layers, png_skips, summary
from gradflow.render.png_text import GREY, INK, fill, label, short

WIDTH = 9.0  # inches: at GitHub's 900 pixels a point of type is 1.4 pixels
_VERDICT = {"sick": ("#D55E00", "white"), "warnings": ("#E69F00", INK), "healthy": ("#009E73", "white")}
_STYLE = {
    "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": INK, "axes.labelsize": 8.5,
    "axes.titlesize": 10.0, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 5.0, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0, "font.family": "DejaVu Sans", "figure.facecolor": "white",
}  # fmt: skip
Line = tuple[str, float, str, str]  # text, size, weight, colour
_BADGE, _LEADING = 38, 5.0  # points: the verdict's own line, and what a line takes beside its type
_PANELS = (3.1, 1.25, 1.75, 1.95)  # inches: layers, arcs, λ, shares


def render(report: Report, *, dpi: int = 150) -> bytes:
    """The report as a PNG, 9 inches wide; the same report gives the same bytes."""
    with matplotlib.style.context(["default", _STYLE]):
        out = BytesIO()
        figure(report, dpi=dpi).savefig(out, format="png", dpi=dpi, metadata={"Software": None})
        return out.getvalue()


def figure(report: Report, *, dpi: int = 150) -> Figure:
    """The figure that `render` saves, laid out and frozen."""
    panels = _PANELS if report.skips else (_PANELS[0], 0.3)
    fig = Figure(figsize=(WIDTH, 10), dpi=dpi, layout=ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.06, hspace=0.02))
    renderer = _renderer(FigureCanvasAgg(fig))
    lines = _lines(report, renderer, fig.bbox.width * 0.976)
    head = (_BADGE + sum(size + _LEADING for _, size, _, _ in lines)) / 72 + 0.12
    fig.set_size_inches(WIDTH, head + sum(panels) + 0.3)
    grid = fig.add_gridspec(1 + len(panels), 1, height_ratios=[head, *panels])
    fig.add_subplot(grid[0]).axis("off")
    layers = fig.add_subplot(grid[1])
    named = [(layers, _layers(layers, report))]
    if report.skips:
        rest = [fig.add_subplot(grid[i], sharex=layers) for i in (2, 3, 4)]
        named.append((rest[1], _skips(fig, report, rest)))
    else:
        _sentence(fig.add_subplot(grid[2]), "No skip connection was found: the gradient has no way around any layer.")
    fig.draw_without_rendering()
    fig.set_layout_engine("none")
    renderer = _renderer(fig.canvas)
    _header(fig, report, lines, renderer)
    for axes, points in named:
        label(axes, renderer, points, 8.0)
    return fig


def _renderer(canvas: FigureCanvasBase) -> RendererBase:
    """What measures the texts, for the figure's present size."""
    assert isinstance(canvas, FigureCanvasAgg)
    renderer: RendererBase = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


def _layers(axes: Axes, report: Report) -> list[tuple[float, float, str]]:
    axes.set_title("Gradient gain of each layer, input to output", fontsize=10)
    if not report.layers:
        _sentence(axes, "No layer was found.")
        return []
    points = png_layers.draw(axes, report)
    ends = [len(report.layers), *(s.join_depth for s in report.skips)]
    spare = max(0.3, 0.012 * max(ends))
    axes.set_xlim(-0.5 - spare, max(ends) - 0.5 + spare)
    _depth_ticks(axes, last=not report.skips)
    return points


def _depth_ticks(axes: Axes, last: bool) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.tick_params(axis="x", labelbottom=last, length=3 if last else 0)
    if last:
        axes.set_xlabel("depth: layers in the order of the forward pass")


def _skips(fig: Figure, report: Report, panels: list[Axes]) -> list[tuple[float, float, str]]:
    arcs, lambdas, shares = panels
    arcs.set_title(f"{summary.plural(len(report.skips), 'skip connection')}, fork to join, as wide as the gain", fontsize=10)
    png_skips.arcs(arcs, report.skips)
    lambdas.set_title("λ: what each skip passes on of the gradient", fontsize=10)
    named = png_skips.lambdas(lambdas, report)
    shares.set_title("Branch against skip: which of them carries the gradient", fontsize=10)
    colored = png_skips.shares(shares, report.skips)
    _share_key(fig, shares, report, colored)
    for axes in panels:
        _depth_ticks(axes, last=axes is shares)
    return named


def _share_key(fig: Figure, shares: Axes, report: Report, colored: PathCollection | None) -> None:
    """In the gutter: the colour scale of cos(s, f), and what stands at the edges."""
    if colored is not None:
        bar = shares.inset_axes((1.02, 0.0, 0.018, 0.4))
        fig.colorbar(colored, cax=bar, ticks=[-1, 0, 1])
        bar.set_yticklabels(["−1 opposed", "0", "+1 aligned"], fontsize=8)
        bar.tick_params(length=2)
        shares.text(1.015, 0.45, "cos(skip, branch)", transform=shares.transAxes, fontsize=8, color=INK, va="bottom")
    png_layers.legend(shares, png_skips.edge_handles(report.skips), top=1.1)


def _sentence(axes: Axes, text: str) -> None:
    axes.axis("off")
    axes.text(0.0, 0.5, text, transform=axes.transAxes, fontsize=9.5, color=INK, va="center")


def _lines(report: Report, renderer: RendererBase, width: float) -> list[Line]:
    """The lines under the verdict: the worst finding, what to do, what was profiled, what was measured."""
    paragraphs = [(_sentence_of(report), 10.5, "bold", INK, 2)]
    if summary.alarms(report):
        paragraphs.append((f"Next: {summary.next_step(report)}", 9.5, "normal", INK, 2))
    paragraphs += [(" · ".join(summary.target(report)[1:]), 8.5, "normal", GREY, 2), (summary.coverage(report), 8.5, "normal", GREY, 2)]
    return [
        (line, size, weight, color)
        for text, size, weight, color, most in paragraphs
        for line in fill(text, renderer, FontProperties(size=size, weight=weight), width, most)
    ]


def _header(fig: Figure, report: Report, lines: list[Line], renderer: RendererBase) -> None:
    """Verdict on its colour, model and severity, then `lines`."""
    point = 1 / 72 / fig.get_figheight()
    face, ink = _VERDICT[report.verdict]
    fig.add_artist(Rectangle((0, 1 - 4 * point), 1, 4 * point, transform=fig.transFigure, color=face, linewidth=0))
    y = 1 - 20 * point
    badge = fig.text(
        0.018, y, report.verdict.upper(), fontsize=14, fontweight="bold", color=ink, va="center", parse_math=False,
        bbox={"boxstyle": "round,pad=0.3", "facecolor": face, "edgecolor": "none"},
    )  # fmt: skip
    right = badge.get_window_extent(renderer).x1 / fig.bbox.width + 0.02
    found = f" · {summary.plural(len(report.findings), 'finding')}" if report.findings else ""
    title = f"{short(report.target.model_class, 40)}    {summary.verdict(report)}{found}"
    fig.text(right, y, title, fontsize=13, fontweight="bold", color=INK, va="center", parse_math=False)
    y -= (_BADGE - 20) * point
    for line, size, weight, color in lines:
        fig.text(0.012, y - size / 2 * point, line, fontsize=size, fontweight=weight, color=color, va="center", parse_math=False)
        y -= (size + _LEADING) * point


def _sentence_of(report: Report) -> str:
    """The worst alarm, or what a healthy report can claim."""
    alarms = summary.alarms(report)
    if alarms:
        return summary.told(alarms[0])
    if not summary.is_complete(report):
        return "Nothing that was measured is wrong, but not everything was measured."
    zeros = sum(layer.gain == 0 and not layer.closed_by for layer in report.layers)
    if zeros or summary.closed(report):
        rest = f"; the gradient is exactly 0 at {summary.plural(zeros, 'layer')}" if zeros else ""
        return f"No alarm{rest}. {summary.closed(report)}".strip()
    return "The gradient reaches every layer." if report.layers else "There is no layer to measure."
