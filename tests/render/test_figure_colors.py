"""Colours can be told apart, also by eyes that lack one kind of cone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from gradflow.render.figure import ThemeName
from gradflow.render.figure.theme import THEMES

# What is seen in linear RGB: Machado, Oliveira and Fernandes 2009, table 1, severity 1.
EYES = {
    "all cones": np.eye(3),
    "no long cones": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no middle cones": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no short cones": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
APART = 12.0  # CIELAB units of 1976; 2.3 are just noticeable


def linear(color: str) -> np.ndarray:
    """sRGB in linear light, [3]."""
    c = np.array(to_rgb(color))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(color: str, eye: np.ndarray) -> np.ndarray:
    """CIELAB under D65, [3]."""
    white = XYZ @ np.ones(3)
    x = XYZ @ np.clip(eye @ linear(color), 0, 1) / white
    f = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(color: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color))


def contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("name", ThemeName, ids=lambda t: t.value)
def test_stages_and_alarms(name, eye):
    """No two of the stages' colours and the two of alarm look alike."""
    theme = THEMES[name]
    colors = [*theme.stages, theme.alarm["error"], theme.alarm["warning"]]
    for one, other in itertools.combinations(colors, 2):
        assert np.linalg.norm(lab(one, EYES[eye]) - lab(other, EYES[eye])) >= APART, (one, other)


@pytest.mark.parametrize("name", ThemeName, ids=lambda t: t.value)
def test_type_can_be_read(name):
    """Words have the contrast that WCAG asks of text (4.5), large type on the header's bar that of large text (3)."""
    theme = THEMES[name]
    assert contrast(theme.ink, theme.paper) >= 7 and contrast(theme.grey, theme.paper) >= 4.5
    for face, ink in theme.verdict.values():
        assert contrast(face, ink) >= 4.5
