"""From a figure to bytes. The same figure gives the same bytes: no format says when or by what it was written."""

from __future__ import annotations

from io import BytesIO

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure

_SILENT: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def renderer(fig: Figure) -> RendererAgg:
    """What measures texts in the figure's pixels. One of its own: the figure may have a canvas that has none, and that stays as it is."""
    return RendererAgg(max(1, round(fig.bbox.width)), max(1, round(fig.bbox.height)), fig.dpi)  # type: ignore[no-untyped-call]


def save(fig: Figure, ending: str) -> bytes:
    """The figure in the format of `ending`: ".png" in its own dots per inch, ".svg" and ".pdf" with their text as text."""
    out = BytesIO()
    form = ending.removeprefix(".")
    fig.savefig(out, format=form, dpi=fig.dpi, metadata=_SILENT[form])
    return out.getvalue()
