"""A ShatterReport as one picture: the ACF at a handful of depths beside the two references, and the correlation over depth. Uses no pyplot."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradflow.render.figure import ThemeName
from gradflow.render.figure.canvas import renderer, save
from gradflow.render.figure.text import fill, short
from gradflow.render.figure.theme import THEMES, Theme, applied, dress
from gradflow.render.shatter import words
from gradflow.shatter_records import Curve, Process, ShatterReport

WIDTH = 9.0  # inches
_PANEL, _AXIS, _ROW = 3.1, 0.55, 0.165  # inches: the panels, what stands under them, a line of the legend
_MOST = 6  # curves that are drawn
_BANDS: dict[Process, str] = {"white noise": "#CC79A7", "Brownian motion": "#009E73"}
_COSINE = "#D55E00"
_LEADING = 5.0
Line = tuple[str, float, str, str]  # text, size, weight, colour
Key = tuple[Artist | tuple[Artist, ...], str]


def render(report: ShatterReport, *, theme: ThemeName = ThemeName.LIGHT, ending: str = ".png", dpi: int = 150) -> bytes:
    """The report as a picture 9 inches wide, in the format of `ending`; the same report gives the same bytes."""
    with applied(THEMES[theme]):
        return save(_figure(report, THEMES[theme], dpi), ending)


def figure(report: ShatterReport, *, theme: ThemeName = ThemeName.LIGHT, dpi: int = 150) -> Figure:
    """The figure that `render` saves, drawn."""
    with applied(THEMES[theme]):
        fig = _figure(report, THEMES[theme], dpi)
        fig.draw_without_rendering()
    return fig


def _figure(report: ShatterReport, theme: Theme, dpi: int) -> Figure:
    fig = Figure(figsize=(WIDTH, 5), dpi=dpi)
    lines = _lines(report, fig, theme)
    head = (sum(size + _LEADING for _, size, _, _ in lines) + 14) / 72
    key = _AXIS + _ROW * max(4, 2 + len(chosen(report.curves)))
    height = head + 0.35 + _PANEL + key
    fig.set_size_inches(WIDTH, height)
    bottom, top = key / height, (key + _PANEL) / height
    left = fig.add_axes((0.065, bottom, 0.405, top - bottom))
    right = fig.add_axes((0.555, bottom, 0.43, top - bottom))
    for axes in (left, right):
        dress(axes, theme)
    _curves(left, report, theme)
    _depth(right, report, theme)
    _header(fig, lines)
    return fig


def _curves(axes: Axes, report: ShatterReport, theme: Theme) -> None:
    axes.set_title("Autocorrelation along the line", loc="left", fontweight="bold")
    keys: list[Key] = []
    lags = range(report.lags + 1)
    for reference in report.references:
        color = _BANDS[reference.name]
        pairs = list(zip(reference.acf, reference.deviation, strict=True))
        axes.fill_between(lags, [m - 2 * d for m, d in pairs], [min(m + 2 * d, 1.0) for m, d in pairs], color=color, alpha=0.16, linewidth=0, zorder=1)
        axes.plot(lags, reference.acf, color=color, linewidth=1.2, linestyle=(0, (4, 2)), zorder=2)
        keys.append(_band_key(reference.name))
    for curve in reversed(chosen(report.curves)):
        assert curve.acf is not None
        (drawn,) = axes.plot(lags, curve.acf, color=_color(report, curve, theme), marker="o", markersize=3.0, linewidth=1.6, zorder=4)
        keys.append((drawn, f"{short(curve.name, 30)}  ({_depth_name(curve)})"))
    if not chosen(report.curves):
        axes.text(
            0.5,
            0.5,
            "No curve: the gradient does not\nchange along the line, or is not defined.",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color=theme.ink,
        )
    axes.set_xlim(-0.2, report.lags + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.set_xlabel("lag, in points of the line")
    _correlation_axis(axes, "ACF", theme)
    _key(axes, keys[:2] + keys[:1:-1])


def _depth(axes: Axes, report: ShatterReport, theme: Theme) -> None:
    axes.set_title("Correlation over depth, input to output", loc="left", fontweight="bold")
    for reference in report.references:
        color = _BANDS[reference.name]
        mean, deviation = reference.acf[1], reference.deviation[1]
        axes.axhspan(mean - 2 * deviation, min(mean + 2 * deviation, 1.0), color=color, alpha=0.16, linewidth=0, zorder=1)
    places = _places(report.curves)
    shown = [(x, c) for x, c in zip(places, report.curves, strict=True) if c.acf is not None]
    size = max(6.0, min(24.0, 1800 / max(len(places), 1)))
    cosines = [(x, c.mean_cosine) for x, c in zip(places, report.curves, strict=True) if c.mean_cosine is not None]
    axes.scatter([x for x, _ in cosines], [y for _, y in cosines], s=size, marker="s", facecolors="none", edgecolors=_COSINE, linewidths=0.9, zorder=3)
    axes.scatter([x for x, _ in shown], [c.acf[1] for _, c in shown if c.acf], s=size, c=[_color(report, c, theme) for _, c in shown], linewidths=0, zorder=4)
    constant = [x for x, c in zip(places, report.curves, strict=True) if c.like == "constant"]
    low = _correlation_axis(axes, "correlation", theme)
    axes.scatter(constant, [low] * len(constant), s=28, marker="x", color=theme.ink, linewidths=1.2, zorder=5, clip_on=False)
    axes.set_xlim(min(places, default=0) - 0.7, max(places, default=0) + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("depth: layers in the order of the forward pass, inputs at −1")
    shades = tuple(Line2D([], [], color=_shade(s, theme), marker="o", markersize=5, linestyle="") for s in (0.0, 0.5, 1.0))
    keys: list[Key] = [(shades, "ACF at lag 1; the bands are the references'")]
    if cosines:
        square = Line2D([], [], color=_COSINE, marker="s", markersize=4.5, markerfacecolor="none", linestyle="")
        keys.append((square, f"mean cosine between {report.samples} samples of the batch"))
    if constant:
        keys.append((Line2D([], [], color=theme.ink, marker="x", markersize=5, linestyle=""), "constant along the line: the ACF is 0/0"))
    _key(axes, keys)


def chosen(curves: Sequence[Curve]) -> list[Curve]:
    """At most six curves that have an ACF, at equal distances from the input to the output."""
    defined = [c for c in curves if c.acf is not None]
    most = min(len(defined), _MOST)
    return [defined[round(i * (len(defined) - 1) / max(most - 1, 1))] for i in range(most)]


def _places(curves: Sequence[Curve]) -> list[int]:
    """Where each curve stands on the axis of depth: all inputs at −1."""
    return [c.depth for c in curves]


def _color(report: ShatterReport, curve: Curve, theme: Theme) -> str:
    last = max((c.depth for c in report.curves), default=0)
    return _shade((curve.depth + 1) / (last + 1) if last >= 0 else 0.0, theme)


def _shade(share: float, theme: Theme) -> str:
    """Near the ink at the input, far from it at the output; readable in grey and without red or green."""
    return to_hex(theme.sequence(share))


def _depth_name(curve: Curve) -> str:
    return "an input" if curve.type == "input" else f"depth {curve.depth}"


def _correlation_axis(axes: Axes, label: str, theme: Theme) -> float:
    """From 1 down to the lowest point, −0.25 at least; returns the lower end."""
    low = min(-0.25, float(axes.dataLim.y0) - 0.04)
    low = max(low, -1.05)
    axes.set_ylim(low, 1.05)
    axes.grid(axis="y", color=theme.faint, linewidth=0.5)
    axes.axhline(0, color=theme.grey, linewidth=0.8, zorder=1.5)
    axes.set_ylabel(label)
    return low


def _band_key(name: Process) -> Key:
    color = _BANDS[name]
    return Patch(facecolor=color, alpha=0.3, edgecolor=color), f"{name} ± 2 standard deviations"


def _key(axes: Axes, keys: Sequence[Key]) -> None:
    """A legend below the axes. Texts are set afterwards, so that no name is parsed or skipped for its underscore."""
    box = axes.legend(
        [handle for handle, _ in keys], ["x"] * len(keys), loc="upper left", bbox_to_anchor=(-0.02, -0.15), borderaxespad=0, frameon=False, handlelength=1.8,
        labelspacing=0.3, ncols=1, handler_map={tuple: HandlerTuple(ndivide=None)},
    )  # fmt: skip
    for text, (_, name) in zip(box.get_texts(), keys, strict=True):
        text.set_parse_math(False)
        text.set_text(name)


def _lines(report: ShatterReport, fig: Figure, theme: Theme) -> list[Line]:
    """The header: what the gradient is like, the numbers behind it, what was run."""
    measure = renderer(fig)
    facts = " · ".join([words.line(report), *words.target(report)])
    paragraphs = [
        (f"{short(report.target.model_class, 40)}: {words.headline(report)}", 12.0, "bold", theme.ink, 2),
        (" ".join(filter(None, [words.evidence(report), words.whitened(report)])), 9.5, "normal", theme.ink, 2),
        (facts, 8.5, "normal", theme.grey, 2),
        *([(f"Note: {'; '.join(report.notes)}", 8.5, "normal", theme.grey, 2)] if report.notes else []),
    ]
    return [
        (line, size, weight, color)
        for text, size, weight, color, most in paragraphs
        for line in fill(text, measure, FontProperties(size=size, weight=weight), fig.bbox.width * 0.97, most)
    ]


def _header(fig: Figure, lines: Sequence[Line]) -> None:
    point = 1 / 72 / fig.get_figheight()
    y = 1 - 8 * point
    for text, size, weight, color in lines:
        fig.text(0.012, y - size / 2 * point, text, fontsize=size, fontweight=weight, color=color, va="center", parse_math=False)
        y -= (size + _LEADING) * point
