"""The theme's colours: text can be read, and charts can be told apart by people with any colour blindness."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

THEME: dict[str, Any] = tomllib.loads(
    (Path(__file__).resolve().parent.parent / ".streamlit" / "config.toml").read_text()
)["theme"]
SEEN_AS = {
    "all three cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Machado, Oliveira, Fernandes: A Physiologically-based Model for Simulation of Color Vision Deficiency (2009)."""

TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
APART = 20
"""CIE76 distance; 2.3 is just noticeable side by side, thin lines want far more."""


def linear(color: str) -> "np.ndarray[Any, Any]":
    part = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(light: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    xyz = TO_XYZ @ np.clip(light, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's ratio."""
    low, high = sorted(float(TO_XYZ[1] @ linear(color)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("eyes", SEEN_AS)
def test_lines_of_a_chart_can_be_told_apart(scheme: str, eyes: str) -> None:
    seen = {color: lab(np.array(SEEN_AS[eyes]) @ linear(color)) for color in THEME[scheme]["chartCategoricalColors"]}
    assert len(seen) >= 6
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= APART, (one, other)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_page_and_text_can_be_read(scheme: str) -> None:
    theme = THEME[scheme]
    assert all(contrast(color, theme["backgroundColor"]) >= 3 for color in theme["chartCategoricalColors"])
    for text in ("textColor", "linkColor", "redColor", "orangeColor", "greenColor", "blueColor", "grayColor"):
        assert contrast(theme[text], theme["backgroundColor"]) >= 4.5, text
    assert contrast("#FFFFFF", theme["primaryColor"]) >= 4.5
