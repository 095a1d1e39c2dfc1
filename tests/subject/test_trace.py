"""Tracebacks trimmed to the user's frames."""

import pytest
import torch

from gradflow.subject import user_traceback


def test_error_inside_a_module():
    """torch's call machinery is left out, the user's forward stays."""

    class Net(torch.nn.Module):
        def forward(self, x):
            raise ValueError("here")

    with pytest.raises(ValueError, match="here") as caught:
        torch.nn.Sequential(Net())(1)
    text = user_traceback(caught.value)
    assert "in forward" in text and "test_trace.py" in text
    assert "nn/modules/module.py" not in text


def test_deep_recursion():
    """Only the last frames are kept."""

    def down(n):
        return 1 / 0 if n == 0 else down(n - 1)

    with pytest.raises(ZeroDivisionError) as caught:
        down(50)
    assert user_traceback(caught.value).count('File "') <= 8


def test_error_without_frames():
    """An error that was never raised has nothing to show."""
    assert user_traceback(ValueError("x")) == ""
