"""A slider over pictures that were drawn beforehand: it works on a static page, with nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from html import escape

import numpy as np
from IPython.display import HTML
from PIL import Image
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.figures import to_pixels

SIDE, MOST, QUALITY = 128, 20, 90  # most pixels of a frame's height, most frames, JPEG quality

PAGE = """\
<figure class="slider-figure" style="margin:0;max-width:min(100%,{wide}rem);color:inherit">
<img alt="{alt}" src="data:image/jpeg;base64,{data}" style="display:block;box-sizing:border-box;width:100%;\
max-width:100%;height:auto;aspect-ratio:{ratio};object-fit:cover;object-position:100% 0;padding:0;\
image-rendering:pixelated">
<label for="{key}" style="display:block;margin:.5rem 0 0">{prompt}: <output for="{key}" aria-live="off">{last}</output></label>
<input type="range" id="{key}" min="0" max="{end}" value="{end}" step="1" data-labels="{labels}" aria-valuetext="{last}" \
autocomplete="off" style="width:100%;accent-color:currentColor;cursor:pointer" oninput="{script}">
<noscript>This is the last of {count} frames; the slider needs JavaScript.</noscript>
</figure>"""

SCRIPT = (
    "const f=this.closest('figure'),l=JSON.parse(this.dataset.labels),i=+this.value;"
    "f.querySelector('img').style.objectPosition=100*i/(l.length-1)+'% 0';"
    "f.querySelector('output').textContent=l[i];this.setAttribute('aria-valuetext',l[i])"
)


def slider(frames: Sequence[Tensor], labels: Sequence[str], alt: str, prompt: str = "Step") -> HTML:
    """Frames (C, H, W) in [-1, 1], all of one size, under a range input; without JavaScript the last one is seen.

    The frames lie side by side in one inline JPEG (a few kB each), and the input moves the window over it. `labels`
    says what each frame is, `alt` what they show together, `prompt` what the slider turns. Raises `InputError` for
    fewer than 2 frames, more than 20, other numbers of labels, or frames of different sizes.
    """
    if not 2 <= len(frames) <= MOST or len(labels) != len(frames):
        raise InputError(f"frames: got {len(frames)} with {len(labels)} labels; give 2 to {MOST} frames and a label for each")
    if len({tuple(f.shape[-2:]) for f in frames}) > 1:
        raise InputError("frames: they differ in size; give pictures of one height and width")
    tiles = [tile(to_pixels(frame)) for frame in frames]
    height, width = tiles[0].shape[:2]
    data = jpeg(np.concatenate(tiles, axis=1))
    text = {"alt": alt, "prompt": prompt, "last": labels[-1], "labels": json.dumps(list(labels)), "script": SCRIPT}
    page = PAGE.format(
        **{name: escape(value, quote=True) for name, value in text.items()},
        key="frames-" + hashlib.sha256(data).hexdigest()[:12],
        data=base64.b64encode(data).decode(),
        ratio=f"{width}/{height}",
        wide=min(round(20 * width / height), 40),
        end=len(frames) - 1,
        count=len(frames),
    )
    return HTML(page)


def tile(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) in [0, 1] -> uint8, averaged down to SIDE pixels of height where it is larger."""
    levels = (pixels * 255).round().astype(np.uint8)
    height, width = levels.shape[:2]
    if height <= SIDE:
        return levels
    return np.asarray(Image.fromarray(levels).resize((round(width * SIDE / height), SIDE), Image.Resampling.BOX))


def jpeg(levels: np.ndarray) -> bytes:
    """The picture as JPEG, colours at full resolution so that neighbours do not bleed into one another."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
