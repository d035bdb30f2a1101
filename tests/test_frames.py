"""The slider: sound HTML, nothing from outside, and a page without JavaScript still shows the last frame."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

from leader_nb.errors import InputError
from leader_nb.frames import MOST, SIDE, slider


def parts(frames, labels, alt="a row of greys", **options):
    soup = BeautifulSoup(slider(frames, labels, alt, **options).data, "html.parser")
    return soup, soup.find("img"), soup.find("input")


def greys(count, height=16, width=16):
    return [torch.full((1, height, width), v) for v in np.linspace(-1, 1, count)]


def pixels(image):
    head, data = image["src"].split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_frames_lie_side_by_side_and_the_last_one_is_shown():
    _, image, knob = parts(greys(3), ["a", "b", "c"])
    sprite = pixels(image)
    assert sprite.shape == (16, 48, 3)
    assert np.abs(sprite[8, [8, 24, 40], 0] - np.array([0.0, 127.5, 255.0])).max() < 3
    assert "object-position:100% 0" in image["style"]
    assert (knob["min"], knob["max"], knob["value"], knob["aria-valuetext"]) == ("0", "2", "2", "c")


def test_names_are_for_people_and_escaped():
    soup, image, knob = parts(greys(2), ['<b>"1"', "it's 2"], 'alt "quoted" & <b>', prompt="Turn & look")
    assert image["alt"] == 'alt "quoted" & <b>'
    assert json.loads(knob["data-labels"]) == ['<b>"1"', "it's 2"]
    label = soup.find("label")
    assert label["for"] == knob["id"]
    assert label.get_text() == "Turn & look: it's 2"
    assert soup.find("noscript")
    assert not soup.find("b") and not soup.find("script")


def test_nothing_is_fetched():
    assert "http" not in slider(greys(2), ["a", "b"], "greys").data


def test_large_frames_are_shrunk_and_noise_can_be_coded():
    _, image, _ = parts([torch.randn(3, 256, 512) for _ in range(MOST)], ["x"] * MOST)
    assert pixels(image).shape == (SIDE, 2 * SIDE * MOST, 3)


@pytest.mark.parametrize(
    ("frames", "labels"),
    [
        (greys(1), ["a"]),
        (greys(MOST + 1), ["a"] * (MOST + 1)),
        (greys(3), ["a"]),
        ([*greys(1), *greys(1, width=24)], ["a", "b"]),
    ],
)
def test_what_cannot_be_shown_is_refused(frames, labels):
    with pytest.raises(InputError, match="frames"):
        slider(frames, labels, "greys")
