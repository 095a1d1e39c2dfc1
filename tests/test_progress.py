"""Progress on standard error: told between phases, shown on a terminal alone, gone when the run ends."""

import io
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from gradflow.assembly import Options
from gradflow.cli.progress import progress
from gradflow.line import Course
from gradflow.profiling import graph_target, profile_target
from gradflow.shattered import shatter_target

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
BATCHES = """
import torch
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
def inputs():
    return torch.randn(3, 4)
"""


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal 40 cells wide."""
    stream = Terminal()
    monkeypatch.setattr("gradflow.cli.progress.sys", SimpleNamespace(stderr=stream))  # pytest sets sys.stderr anew for each phase of a test
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    return stream


def last_line(text):
    """What a reader sees on the line of the cursor: the rest was erased."""
    return text.split("\x1b[2K")[-1]


def test_the_phases_of_a_profile(tmp_path):
    """Loading, then forward, analysis and backward of each batch, which is named where there are several."""
    file = tmp_path / "model.py"
    file.write_text(BATCHES)
    told = []
    profile_target(str(file), Options(), tell=told.append)
    assert told == [f"load {file}", "forward", "analysis", "backward", "analysis"]
    told.clear()
    profile_target(str(file), Options(batches=2), tell=told.append)
    assert told[1:] == [f"batch {i} of 2: {phase}" for i in (1, 2) for phase in ("forward", "analysis", "backward", "analysis")]


def test_the_phases_of_a_search_for_infinities(tmp_path):
    """A batch that is run again says so."""
    file = tmp_path / "model.py"
    file.write_text("import torch\nfrom torch import nn\nmodel = nn.Sequential(nn.Linear(4, 4), nn.ReLU())\ninputs = torch.full((2, 4), float('inf'))\n")
    told = []
    profile_target(str(file), Options(), tell=told.append)
    assert told[-1] == "search for the first value that is not finite"


def test_the_phases_of_a_graph_and_a_line():
    """The other commands that run a model tell theirs."""
    told = []
    graph_target(str(EXAMPLES / "small_gpt.py"), Options(), told.append)
    assert told == [f"load {EXAMPLES / 'small_gpt.py'}", "forward"]
    told.clear()
    shatter_target(str(EXAMPLES / "residual_cnn.py"), Options(), Course(points=8), told.append)
    assert [phase.split()[0] for phase in told] == ["load", "forward", "forward", "comparison"]


def test_nothing_is_told_while_gradients_are_on_their_way(tmp_path):
    """No phase begins inside a hook: between "backward" and the next phase nothing is called."""
    file = tmp_path / "model.py"
    file.write_text(
        "import torch\nfrom torch import nn\nseen = []\n"
        "class Noted(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(4, 4)\n"
        "    def forward(self, x):\n        x = self.fc(x)\n        x.register_hook(lambda g: seen.append('gradient'))\n        return x\n"
        "model, inputs = Noted(), torch.randn(2, 4)\n"
    )  # fmt: skip
    order = []

    def tell(phase):
        module = next((m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == str(file)), None)
        order.append((phase, len(module.seen) if module else 0))

    profile_target(str(file), Options(), tell=tell)
    assert [seen for phase, seen in order if phase == "backward"] == [0]
    assert order[-1][0] == "analysis" and order[-1][1] >= 1


def test_a_terminal_sees_the_phase_and_then_nothing(terminal):
    """One line, overwritten, cut to the width, erased at the end; no thread draws it."""
    threads = threading.active_count()
    with progress() as tell:
        tell("forward")
        assert "forward …" in last_line(terminal.getvalue())
        tell("batch 3 of 8: backward through a very long name \x1b[31m of a phase")
        shown = last_line(terminal.getvalue())
        assert "forward" not in shown and "\x1b[31m" not in shown and "\n" not in terminal.getvalue()
        assert threading.active_count() == threads
    assert last_line(terminal.getvalue()) == ""


def test_an_error_leaves_no_line_behind(terminal):
    """The line is erased before the error is shown."""
    with pytest.raises(ValueError), progress() as tell:
        tell("forward")
        raise ValueError
    assert last_line(terminal.getvalue()) == ""


@pytest.mark.parametrize("situation", ["quiet", "dumb", "unknown", "a file"])
def test_silence(terminal, situation, monkeypatch):
    """With --quiet, on a terminal that cannot erase, and where standard error is none."""
    if situation in ("dumb", "unknown"):
        monkeypatch.setenv("TERM", situation)
    if situation == "a file":
        monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    with progress(quiet=situation == "quiet") as tell:
        tell("forward")
    assert terminal.getvalue() == ""


def test_a_terminal_without_unicode(terminal):
    """What it cannot show is replaced."""
    terminal.encoding = "ascii"
    with progress() as tell:
        tell("load 模型.py")
    assert "load ??.py ?" in terminal.getvalue()


def test_numbers_are_those_of_a_quiet_run(terminal):
    """Progress changes nothing that is measured."""
    target = str(EXAMPLES / "small_gpt.py")
    with progress() as tell:
        shown = profile_target(target, Options(), tell=tell)
    quiet = profile_target(target, Options())
    assert terminal.getvalue()
    assert (shown.layers, shown.skips, shown.highways, shown.run.loss) == (quiet.layers, quiet.skips, quiet.highways, quiet.run.loss)


def _all_of(descriptor, seconds):
    """What is written to a pseudo-terminal until the last writer closes it."""
    data, end = b"", time.monotonic() + seconds
    while select.select([descriptor], [], [], max(end - time.monotonic(), 0))[0]:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # Linux says so of a terminal that nobody holds any more
            piece = b""
        if not piece:
            return data.decode()
        data += piece
    raise TimeoutError(data.decode())


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are Unix's")
def test_the_command_on_a_terminal():
    """`gradflow profile` shows its phases before the verdict and nothing of them after it; with TERM=dumb there is no escape code at all."""
    import pty

    def seen(term):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "gradflow", "profile", str(EXAMPLES / "small_gpt.py")]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": term}, start_new_session=True)
        os.close(theirs)
        try:
            text = _all_of(ours, seconds=120)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return text

    text = seen("xterm")
    before, after = text.split("HEALTHY", 1)
    for phase in ("load ", "forward …", "backward …", "analysis …"):
        assert phase in before
    assert "\x1b[2K" not in after
    uri = (EXAMPLES / "small_gpt.py").as_uri()
    assert f"\x1b]8;;{uri}\x1b\\" in after and after.count("\x1b]8;;\x1b\\") == after.count(f"\x1b]8;;{uri}\x1b\\")
    assert "\x1b" not in seen("dumb")
