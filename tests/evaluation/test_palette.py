from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from grpo.evaluation import palette

MANY = [f"model {i}" for i in range(40)]


def test_yardsticks_keep_their_looks_and_a_forecaster_its_own():
    styles = palette.forecaster_styles(["random_walk", *MANY, "optimum"])
    assert list(styles) == ["random_walk", *MANY, "optimum"]
    assert [styles[name].slot for name in ("random_walk", "model 0", "model 39", "optimum")] == [
        "walk",
        "0",
        "39",
        "optimum",
    ]
    assert styles["model 0"] == palette.forecaster_styles(["model 0"])["model 0"]


def linear_rgb(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as an eye without one kind of cone sees it
VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(rgb):
    """CIE 1976 L*a*b* of linear sRGB, D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_colours_are_told_apart_with_any_colour_vision(colours, vision):
    """A difference of 2.3 is just noticeable in CIE76; six times that is told apart at a glance."""
    seen = [lab(np.asarray(VISION[vision]) @ linear_rgb(colour)) for colour in colours]
    assert min(np.linalg.norm(first - second) for first, second in combinations(seen, 2)) > 6 * 2.3


def many_colours(page):
    styles = palette.forecaster_styles(MANY).values()
    return [style.colour if page == "#ffffff" else style.dark for style in styles]


@pytest.mark.parametrize("page", ["#ffffff", "#15181c"])
def test_no_two_of_forty_forecasters_look_alike(page):
    """A difference of 2.3 is just noticeable in CIE76."""
    seen = [lab(linear_rgb(colour)) for colour in many_colours(page)]
    assert min(np.linalg.norm(first - second) for first, second in combinations(seen, 2)) > 4 * 2.3


def test_no_two_of_two_hundred_forecasters_have_one_colour():
    styles = palette.forecaster_styles([str(i) for i in range(200)]).values()
    assert len({style.colour for style in styles}) == len({style.dark for style in styles}) == 200


@pytest.mark.parametrize("page", ["#ffffff", "#15181c"])
def test_colours_stand_out_from_the_page(page):
    """WCAG 2.1 asks for a contrast of 3 for graphics."""
    for colour in many_colours(page):
        low, high = sorted(float(linear_rgb(one) @ [0.2126, 0.7152, 0.0722]) for one in (colour, page))
        assert (high + 0.05) / (low + 0.05) > 3, colour
