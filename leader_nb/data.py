"""Pictures in and out: files, the photographs that come with scikit-image and scikit-learn, and checks on tensors.

Everywhere an image is a tensor (B, 3, H, W) in [-1, 1]: -1 is black, 1 is white, sRGB values as stored (no
linearisation; an embedded colour profile is ignored).
"""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from leader_nb.errors import InputError, nearest, one_line, unknown

MIN_SIDE = 8  # pixels
BYTES_PER_PIXEL = 44  # peak while reading: decoded, turned and converted copies, and float32; measured at most 41

# --- files ------------------------------------------------------------------------------------------------------


def load_image(path: str | os.PathLike[str], size: int = 256, max_pixels: int | None = None) -> Tensor:
    """Read a picture as (1, 3, size, size) float32 in [-1, 1]; `size=0` keeps the whole image at its own size.

    Otherwise the centre square is resized by an antialiased bicubic. The orientation in the EXIF data is applied, grey
    becomes three equal channels, transparency is laid on white (what most pages show), CMYK is converted without a
    profile, 16-bit grey keeps its precision (Pillow reads 16-bit colour as 8-bit), floating-point pixels must be in
    [0, 1], and of an animation or a document the first page is taken. `max_pixels` bounds the picture in the file; by
    default it is what half the free memory can hold at `BYTES_PER_PIXEL`.

    Raises `InputError` where the file is missing, empty, cut short, no picture, too large, or under 8 pixels a side.
    """
    path = Path(path)
    if not isinstance(size, int) or (size != 0 and size < MIN_SIDE):
        raise InputError(f"size={size!r}: give a side of at least {MIN_SIDE} pixels, or 0 for the whole image")
    _check_file(path)
    with _opened(path) as picture:
        _check_size(path, picture.size, max_pixels)
        try:
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            image = _to_tensor(path, _centre_square(picture) if size else picture)
        except InputError:
            raise
        except MemoryError:
            raise InputError(f"{path}: {picture.width} x {picture.height} pixels do not fit in memory; shrink it") from None
        except Exception as error:  # Pillow's decoders raise many kinds of error on damaged bytes
            raise InputError(f"{path}: the picture is damaged or cut short ({one_line(error)}); copy it again") from None
    if size and image.shape[-1] != size:
        image = F.interpolate(image, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return image.clamp_(0, 1).mul_(2).sub_(1)


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            raise no_file(path, "image")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes): copy it again")
    except PermissionError:
        raise InputError(f"{path} may not be read: change the permissions of its folder or copy it") from None


def no_file(path: Path, kind: str) -> InputError:
    """The error (returned, not raised) for a `path` that is no file: a folder, or missing, with the nearest name."""
    if path.is_dir():
        return InputError(f"{path} is a folder: give one {kind} file")
    if not path.parent.is_dir():
        return InputError(f"there is no {kind} {path}, nor a folder {path.parent}: check the path")
    close = nearest(path.name, [p.name for p in path.parent.iterdir()])
    return InputError(f"there is no {kind} {path}: {f'did you mean {close!r}?' if close else 'check the name'}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture, its header read and its pixels not; our own limit replaces Pillow's fixed one meanwhile."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF blocks and palettes: nothing a reader could act on
            with Image.open(path) as picture:
                yield picture
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(12)
        raise InputError(f"{path} is no picture (it starts with {start!r}): give a PNG, JPEG, TIFF, WebP or GIF") from None
    except PermissionError:
        raise InputError(f"{path} may not be read: change its permissions or copy it") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be opened as a picture ({one_line(error)})") from None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_size(path: Path, size: tuple[int, int], max_pixels: int | None) -> None:
    width, height = size
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path} is {width} x {height} pixels: give a picture of at least {MIN_SIDE} pixels a side")
    allowed = max_pixels if max_pixels is not None else int(psutil.virtual_memory().available / 2 / BYTES_PER_PIXEL)
    if width * height > allowed:
        shrink = (allowed / (width * height)) ** 0.5
        reason = "max_pixels" if max_pixels is not None else "the free memory"
        raise InputError(
            f"{path} is {width} x {height} = {width * height / 1e6:.1f} million pixels, more than {reason} allows "
            f"({allowed / 1e6:.1f} million): shrink it to at most {int(width * shrink)} x {int(height * shrink)}"
        )


def _centre_square(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _to_tensor(path: Path, picture: Image.Image) -> Tensor:
    """Any Pillow mode -> (1, 3, H, W) float32 in [0, 1]."""
    if picture.mode.startswith(("I", "F")):
        return _deep_grey(path, picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        # in floating point, so that an opaque pixel keeps its value to the last bit
        pixels = _channels_first(picture)
        return torch.lerp(torch.ones(()), pixels[:, :3], pixels[:, 3:])
    return _channels_first(picture.convert("RGB"))


def _channels_first(picture: Image.Image) -> Tensor:
    levels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return levels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _deep_grey(path: Path, picture: Image.Image) -> Tensor:
    pixels = np.array(picture)
    if not np.isfinite(pixels).all():
        raise InputError(f"{path} holds NaN or infinite pixels: replace them first")
    low, high = float(pixels.min()), float(pixels.max())
    white = 1.0 if picture.mode == "F" else 65535.0
    if low < 0 or high > white:
        raise InputError(f"{path} has pixels from {low:g} to {high:g} in mode {picture.mode}: rescale it to 0 to {white:g}")
    grey = torch.from_numpy(pixels.astype(np.float32) / np.float32(white))
    return grey[None, None].repeat(1, 3, 1, 1)


def save_image(image: Tensor | np.ndarray, path: str | os.PathLike[str]) -> None:
    """Write one image as an 8-bit PNG: (3, H, W) or (1, 3, H, W), or 1 channel for grey; clamped to [-1, 1], rounded.

    The file appears whole or not at all. Raises `InputError` for another shape, NaN, a name that does not end in
    .png, or a folder that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"path={str(path)!r}: images are saved as PNG; give a name that ends in .png")
    pixels = torch.as_tensor(image)
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    channels = 1 if pixels.ndim == 4 and pixels.shape[1] == 1 else 3
    pixels = as_image(pixels, "image", channels, tolerance=float("inf")).detach()
    if len(pixels) != 1:
        raise InputError(f"image: got a batch of {len(pixels)}; save one at a time, for instance image[0]")
    levels = pixels[0].cpu().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(levels[..., 0] if channels == 1 else levels)
    atomic_write(path, lambda file: picture.save(file, format="PNG"))


def atomic_write(path: str | os.PathLike[str], writer: Callable[[BinaryIO], Any]) -> None:
    """Let `writer` fill a temporary file beside `path`, then move it there in one step, replacing what was there.

    If the writer fails, `path` is as before and its error passes through, except that an `OSError` (a full disk, a
    folder that is missing or may not be written) becomes an `InputError`.
    """
    path = check_target(path)
    temporary = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder with room you may write to"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_target(path: str | os.PathLike[str]) -> Path:
    """`path` itself, if a file could be written there; asked before work whose result would otherwise be lost."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {path}: you may not write to {path.parent}; choose another folder")
    return path


# --- tensors ----------------------------------------------------------------------------------------------------


def as_image(value: Tensor | np.ndarray, name: str = "image", channels: int = 3, tolerance: float = 1e-3) -> Tensor:
    """`value` as a tensor (B, channels, H, W), floating point, finite, in [-1, 1] up to `tolerance`; else `InputError`.

    Values, dtype and device are left as they are; the message calls the argument `name`.
    """
    if not isinstance(value, Tensor | np.ndarray):
        raise InputError(f"{name}: got {type(value).__name__}; give a tensor or an array (B, {channels}, H, W)")
    image = torch.as_tensor(value)
    _check_shape(image, name, channels)
    if not image.is_floating_point():
        raise InputError(f"{name}: got {image.dtype}; give floats in [-1, 1], for instance x.float() / 127.5 - 1")
    if not torch.isfinite(image).all():
        raise InputError(f"{name}: {int((~torch.isfinite(image)).sum())} values are NaN or infinite; replace them first")
    low, high = (float(end) for end in image.detach().aminmax())
    if low < -1 - tolerance or high > 1 + tolerance:
        hint = " (from 0 to 255? then x / 127.5 - 1)" if low >= 0 and high > 2 else ""
        raise InputError(f"{name}: values from {low:.4g} to {high:.4g}; give [-1, 1], for instance x.clamp(-1, 1){hint}")
    return image


def _check_shape(image: Tensor, name: str, channels: int) -> None:
    shape = tuple(image.shape)
    if len(shape) == 4 and shape[1] == channels and min(shape) > 0:
        return
    hint = ""
    if len(shape) == 3 and shape[0] == channels:
        hint = "; add the batch axis with x[None]"
    elif len(shape) in (3, 4) and shape[-1] == channels:
        hint = "; move the channels with x.movedim(-1, -3)" + (", then x[None]" if len(shape) == 3 else "")
    elif len(shape) == 4 and shape[1] == 1 and channels == 3:
        hint = "; repeat grey with x.repeat(1, 3, 1, 1)"
    raise InputError(f"{name}: got shape {shape}, expected (B, {channels}, H, W){hint}")


# --- photographs that come with libraries -----------------------------------------------------------------------


@dataclass(frozen=True)
class Photo:
    """A photograph inside an installed package: nothing is downloaded. `credit` names its author and licence."""

    package: str
    distribution: str
    file: str
    credit: str


PHOTOS = {
    "astronaut": Photo("skimage", "scikit-image", "data/astronaut.png", "Eileen Collins, NASA; public domain"),
    "chelsea": Photo("skimage", "scikit-image", "data/chelsea.png", "Stefan van der Walt; CC0"),
    "china": Photo("sklearn", "scikit-learn", "datasets/images/china.jpg", "danielbuechele on Flickr; CC BY 2.0"),
    "coffee": Photo("skimage", "scikit-image", "data/coffee.png", "Rachel Michetti; CC0"),
    "flower": Photo("sklearn", "scikit-learn", "datasets/images/flower.jpg", "vultilion on Flickr; CC BY 2.0"),
    "rocket": Photo("skimage", "scikit-image", "data/rocket.jpg", "SpaceX; public domain"),
}
BUILTIN_PHOTOS: tuple[str, ...] = tuple(PHOTOS)


def builtin_photo(name: str, size: int = 256) -> Tensor:
    """The photograph `name` (one of `BUILTIN_PHOTOS`) as :func:`load_image` reads it: (1, 3, size, size) in [-1, 1].

    Raises `InputError` for another name, or where the package that carries it is not installed.
    """
    if name not in PHOTOS:
        raise unknown("photo", name, BUILTIN_PHOTOS)
    photo = PHOTOS[name]
    spec = find_spec(photo.package)  # finds the folder without the seconds that importing scikit-learn takes
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"photo {name!r} comes with {photo.distribution}: install it with pip install {photo.distribution}")
    return load_image(Path(spec.submodule_search_locations[0]) / photo.file, size)


class Crops(NamedTuple):
    """Crops (B, 3, size, size) in [-1, 1] and, for each, the name of its photograph."""

    images: Tensor
    photos: tuple[str, ...]


def photo_crops(size: int, count: int, seed: int = 0) -> Crops:
    """`count` square crops of the built-in photographs at their own resolution, taken from each in turn.

    Crop i depends on (size, seed, i) alone, so a longer run begins with the crops of a shorter one. Crops of one
    photograph overlap and resemble each other: resample by photograph, `metrics.bootstrap_interval(x, groups=photos)`.
    """
    if count < 1 or seed < 0:
        raise InputError(f"count={count}, seed={seed}: ask for at least 1 crop, with a seed of at least 0")
    photos = {name: builtin_photo(name, 0) for name in BUILTIN_PHOTOS[:count]}
    largest = min(min(photo.shape[-2:]) for photo in photos.values())
    if not MIN_SIDE <= size <= largest:
        raise InputError(f"size={size}: give a side between {MIN_SIDE} and {largest} pixels, which every photo can fill")
    names = tuple(BUILTIN_PHOTOS[i % len(BUILTIN_PHOTOS)] for i in range(count))
    crops = []
    for i, name in enumerate(names):
        height, width = photos[name].shape[-2:]
        top, left = np.random.default_rng([seed, i]).integers(0, (height - size + 1, width - size + 1))
        crops.append(photos[name][..., top : top + size, left : left + size])
    return Crops(torch.cat(crops), names)
