"""Reading and writing pictures of every kind, checks on tensors, and the photographs that come with libraries."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leader_nb import data
from leader_nb.data import (
    BUILTIN_PHOTOS,
    as_image,
    atomic_write,
    builtin_photo,
    load_image,
    photo_crops,
    save_image,
)
from leader_nb.errors import InputError, nearest, one_line, unknown

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 16), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (12, 16), dtype=np.uint8)


def unit(levels: np.ndarray) -> torch.Tensor:
    """8-bit levels (H, W) or (H, W, 3) as the tensor that load_image should give."""
    levels = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    return torch.from_numpy(levels.astype(np.float64) / 127.5 - 1).permute(2, 0, 1)[None].float()


def on_white(levels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    levels = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    a = alpha[..., None] / 255
    return levels * a + 255 * (1 - a)


def one_error(match: str):
    """The error is an InputError whose message is one line."""
    return pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z")


# --- every mode -------------------------------------------------------------------------------------------------

MODES = {
    "rgb.png": (COLOUR, None, COLOUR),
    "grey.png": (GREY, None, GREY),
    "grey.tif": (GREY, None, GREY),
    "la.png": (np.dstack([GREY, ALPHA]), "LA", on_white(GREY, ALPHA)),
    "rgba.png": (np.dstack([COLOUR, ALPHA]), "RGBA", on_white(COLOUR, ALPHA)),
    "rgba.webp": (np.dstack([COLOUR, np.full_like(ALPHA, 255)]), "RGBA", COLOUR),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(tmp_path: Path, name: str) -> None:
    stored, mode, expected = MODES[name]
    extra = {"lossless": True} if name.endswith("webp") else {}
    image = Image.fromarray(stored)
    assert mode is None or image.mode == mode
    image.save(tmp_path / name, **extra)
    loaded = load_image(tmp_path / name, 0)
    assert loaded.dtype == torch.float32 and loaded.shape == (1, 3, 12, 16) and loaded.is_contiguous()
    torch.testing.assert_close(loaded, unit(expected), atol=1e-6, rtol=0)


def test_bilevel(tmp_path: Path) -> None:
    Image.fromarray(GREY > 128).save(tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as image:
        assert image.mode == "1"
    assert load_image(tmp_path / "one.png", 0).unique().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path: Path, transparent: bool) -> None:
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16), mode="P")
    image.putpalette([level for i in range(256) for level in (i, 255 - i, 0)])
    image.save(tmp_path / "p.png", **({"transparency": 7} if transparent else {}))
    loaded = load_image(tmp_path / "p.png", 0)
    levels = np.stack([np.arange(192), 255 - np.arange(192), np.zeros(192)], -1).reshape(12, 16, 3)
    if transparent:
        levels[0, 7] = 255
    torch.testing.assert_close(loaded, unit(levels), atol=1e-6, rtol=0)


def test_colour_key(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    image.save(tmp_path / "key.png", transparency=tuple(int(v) for v in COLOUR[2, 3]))
    assert load_image(tmp_path / "key.png", 0)[0, :, 2, 3].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_precision(tmp_path: Path, suffix: str) -> None:
    deep = RNG.integers(0, 65536, (12, 16), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    with Image.open(tmp_path / f"deep.{suffix}") as image:
        assert image.mode.startswith("I")
    loaded = load_image(tmp_path / f"deep.{suffix}", 0)
    expected = torch.from_numpy(deep.astype(np.float64) / 32767.5 - 1).float().expand(1, 3, -1, -1)
    torch.testing.assert_close(loaded, expected, atol=1e-6, rtol=0)


def test_16_bit_colour(tmp_path: Path) -> None:
    """A 16-bit RGB PNG made by hand (Pillow cannot write one); it is read to 8 bits."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    deep = COLOUR.astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 16, 12, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    torch.testing.assert_close(load_image(tmp_path / "deep.png", 0), unit(COLOUR), atol=1.01 / 127.5, rtol=0)


def test_floating_point_tiff(tmp_path: Path) -> None:
    pixels = RNG.random((12, 16), dtype=np.float32)
    Image.fromarray(pixels).save(tmp_path / "f.tif")
    torch.testing.assert_close(load_image(tmp_path / "f.tif", 0)[0, 0], torch.from_numpy(pixels) * 2 - 1)
    Image.fromarray(pixels * 300).save(tmp_path / "hdr.tif")
    with one_error("rescale it to 0 to 1"):
        load_image(tmp_path / "hdr.tif", 0)
    pixels[0, 0] = np.nan
    Image.fromarray(pixels).save(tmp_path / "nan.tif")
    with one_error("NaN"):
        load_image(tmp_path / "nan.tif", 0)


def test_32_bit_integers_have_no_agreed_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((12, 16), 10**6, dtype=np.int32)).save(tmp_path / "i.tif")
    with one_error("rescale it to 0 to 65535"):
        load_image(tmp_path / "i.tif", 0)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / f"c.{suffix}")
    with Image.open(tmp_path / f"c.{suffix}") as image:
        assert image.mode == "CMYK"
    torch.testing.assert_close(load_image(tmp_path / f"c.{suffix}", 0), unit(flat), atol=3 / 127.5, rtol=0)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("L", (16, 16), level) for level in (0, 255)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "a.gif", 0).unique().tolist() == [-1.0]


# --- orientation, crop, size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_exif_orientation(tmp_path: Path, orientation: int, deep: bool) -> None:
    """Each of the eight orientations gives the upright picture back, in 8 and 16 bits."""
    undo = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    undo |= {5: lambda a: a.T, 6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}
    upright = GREY.astype(np.uint16) * 257 if deep else GREY
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo.get(orientation, lambda a: a)(upright))
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(load_image(tmp_path / "turned.png", 0), unit(GREY), atol=1e-6, rtol=0)


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    ramp = np.repeat(np.linspace(0, 255, 32).astype(np.uint8)[None], 16, axis=0)  # dark left, bright right
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise to show"
    Image.fromarray(np.ascontiguousarray(np.rot90(ramp))).save(tmp_path / "t.jpg", exif=exif, quality=95)
    loaded = load_image(tmp_path / "t.jpg", 0)
    assert loaded.shape == (1, 3, 16, 32)
    torch.testing.assert_close(loaded, unit(ramp), atol=6 / 127.5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(12, 30), (30, 12), (31, 12)])
def test_centre_square(tmp_path: Path, height: int, width: int) -> None:
    levels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "x.png")
    top, left = (height - 12) // 2, (width - 12) // 2
    expected = unit(levels[top : top + 12, left : left + 12])
    torch.testing.assert_close(load_image(tmp_path / "x.png", 12), expected, atol=1e-6, rtol=0)


def test_resize_is_antialiased_and_stays_in_range(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    assert load_image(tmp_path / "board.png", 16)[..., 2:-2, 2:-2].abs().max() < 0.02  # even grey: no aliasing
    edge = np.zeros((32, 32), dtype=np.uint8)
    edge[:, 16:] = 255
    Image.fromarray(edge).save(tmp_path / "edge.png")
    for size in (24, 48):
        loaded = load_image(tmp_path / "edge.png", size)
        assert loaded.shape == (1, 3, size, size) and loaded.min() == -1 and loaded.max() == 1


def test_resize_agrees_with_pillow(tmp_path: Path) -> None:
    smooth = np.asarray(Image.fromarray(COLOUR).resize((60, 60), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "s.png")
    expected = np.asarray(Image.fromarray(smooth).resize((21, 21), Image.Resampling.BICUBIC))  # rounds twice
    torch.testing.assert_close(load_image(tmp_path / "s.png", 21), unit(expected), atol=2 / 127.5, rtol=0)


# --- what cannot be read ----------------------------------------------------------------------------------------


def test_missing_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "kitten.png").touch()
    with one_error("did you mean 'kitten.png'"):
        load_image(tmp_path / "kiten.png")
    with one_error("check the name"):
        load_image(tmp_path / "zzz")
    with one_error("nor a folder"):
        load_image(tmp_path / "no" / "x.png")


def test_folder_empty_and_foreign_files(tmp_path: Path) -> None:
    with one_error("is a folder"):
        load_image(tmp_path)
    (tmp_path / "empty.png").touch()
    with one_error("is empty"):
        load_image(tmp_path / "empty.png")
    (tmp_path / "words.png").write_text("these are words, not pixels\n")
    with one_error("is no picture .it starts with b'these are wo'"):
        load_image(tmp_path / "words.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp", "gif"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_truncated(tmp_path: Path, suffix: str, share: float) -> None:
    """Cut anywhere, a file gives one line, never a traceback of Pillow's or a half-grey picture."""
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(content[: int(len(content) * share)])
    with one_error(f"cut.{suffix}"):
        load_image(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_damaged_bytes(tmp_path: Path, suffix: str) -> None:
    """Flipped bytes either still decode to a valid image or give an InputError; nothing else escapes."""
    Image.fromarray(COLOUR).save(tmp_path / f"x.{suffix}")
    content = (tmp_path / f"x.{suffix}").read_bytes()
    for trial in range(150):
        bad = bytearray(content)
        for position in np.random.default_rng(trial).integers(0, len(bad), 3):
            bad[position] ^= 0xFF
        (tmp_path / f"bad.{suffix}").write_bytes(bad)
        with suppress(InputError):
            as_image(load_image(tmp_path / f"bad.{suffix}", 16, max_pixels=10**6))


@pytest.mark.parametrize("shape", [(4, 4), (100, 7), (7, 100)])
def test_too_small(tmp_path: Path, shape: tuple[int, int]) -> None:
    Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "small.png")
    with one_error(f"{shape[1]} x {shape[0]} pixels.*at least 8"):
        load_image(tmp_path / "small.png")


def test_too_large_says_what_would_do(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((100, 400), dtype=np.uint8)).save(tmp_path / "large.png")
    with one_error("400 x 100 .*max_pixels allows.*shrink it to at most 200 x 50"):
        load_image(tmp_path / "large.png", max_pixels=10_000)
    assert load_image(tmp_path / "large.png", 16, max_pixels=40_000).shape == (1, 3, 16, 16)


def test_a_file_that_claims_to_be_huge(tmp_path: Path) -> None:
    """A bomb is refused by its header, by our limit (from free memory) and not by Pillow's fixed one."""
    header = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    header += (100_000).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    (tmp_path / "bomb.bmp").write_bytes(header + bytes(100))
    before = Image.MAX_IMAGE_PIXELS
    with one_error("10000.0 million pixels, more than the free memory allows"):
        load_image(tmp_path / "bomb.bmp")
    assert before == Image.MAX_IMAGE_PIXELS


def test_max_pixels_replaces_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(tmp_path / "x.png", 0).shape == (1, 3, 32, 32)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize("size", [-1, 1, 7, 16.0, "16"])
def test_size_is_checked(tmp_path: Path, size: object) -> None:
    with one_error("size="):
        load_image(tmp_path / "x.png", size)  # type: ignore[arg-type]


# --- writing ----------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path: Path) -> None:
    save_image(unit(COLOUR), tmp_path / "x.png")
    assert torch.equal(load_image(tmp_path / "x.png", 0), load_image_again(tmp_path / "x.png"))
    torch.testing.assert_close(load_image(tmp_path / "x.png", 0), unit(COLOUR), atol=1e-6, rtol=0)
    x = torch.rand(3, 20, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    save_image(x, tmp_path / "y.png")
    assert (load_image(tmp_path / "y.png", 0)[0] - x).abs().max() <= 0.5001 / 127.5


def load_image_again(path: Path) -> torch.Tensor:
    save_image(load_image(path, 0), path)
    return load_image(path, 0)


def test_save_takes_grey_arrays_gradients_and_overshoot(tmp_path: Path) -> None:
    save_image(unit(GREY)[:, :1], tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "L" and np.array_equal(np.asarray(image), GREY)
    save_image(unit(COLOUR).numpy(), tmp_path / "array.png")
    save_image(unit(COLOUR).requires_grad_(), tmp_path / "grad.png")
    save_image(torch.full((3, 8, 8), 7.0, dtype=torch.bfloat16), tmp_path / "bright.png")
    assert load_image(tmp_path / "bright.png", 0).min() == 1


def test_save_refuses(tmp_path: Path) -> None:
    good = unit(COLOUR)
    with one_error("ends in .png"):
        save_image(good, tmp_path / "x.jpg")
    with one_error("batch of 2"):
        save_image(good.repeat(2, 1, 1, 1), tmp_path / "x.png")
    with one_error("NaN"):
        save_image(good * torch.nan, tmp_path / "x.png")
    with one_error("expected .B, 3, H, W."):
        save_image(torch.zeros(2, 8, 8), tmp_path / "x.png")
    with one_error("there is no folder"):
        save_image(good, tmp_path / "no" / "x.png")
    (tmp_path / "d.png").mkdir()
    with one_error("it is a folder"):
        save_image(good, tmp_path / "d.png")
    assert [p.name for p in tmp_path.iterdir()] == ["d.png"]


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a patched open: the test may run as a user whom permissions do not stop."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with one_error("Permission denied; choose a folder"):
        save_image(unit(COLOUR), tmp_path / "x.png")


def test_atomic_write_leaves_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    atomic_write(path, lambda file: file.write(b"old"))

    def fail(file) -> None:  # type: ignore[no-untyped-def]
        file.write(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_atomic_write_from_many_threads(tmp_path: Path) -> None:
    path, contents = tmp_path / "x.bin", [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=atomic_write, args=(path, lambda f, c=c: f.write(c))) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and list(tmp_path.iterdir()) == [path]


# --- tensors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_as_image_leaves_a_good_image_alone(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 3, 8, 9, dtype=dtype)
    assert as_image(x) is x
    assert as_image(x + 1.0005 if dtype == torch.float64 else x + 1).dtype == dtype
    assert as_image(np.zeros((1, 3, 8, 8))).dtype == torch.float64
    assert as_image(torch.zeros(1, 1, 8, 8), channels=1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.0], "got list"),
        (torch.zeros(3, 8, 8), r"add the batch axis with x\[None\]"),
        (torch.zeros(8, 8, 3), r"movedim\(-1, -3\), then x\[None\]"),
        (torch.zeros(1, 8, 8, 3), r"movedim\(-1, -3\)"),
        (torch.zeros(1, 1, 8, 8), "repeat grey"),
        (torch.zeros(0, 3, 8, 8), "got shape"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "127.5"),
        (torch.full((1, 3, 8, 8), torch.inf), "192 values are NaN or infinite"),
        (torch.full((1, 3, 8, 8), 1.01), r"clamp\(-1, 1\)"),
        (torch.full((1, 3, 8, 8), 255.0), "from 0 to 255"),
    ],
)
def test_as_image_says_what_is_wrong(value: object, message: str) -> None:
    with one_error(f"photo: .*{message}"):
        as_image(value, "photo")  # type: ignore[arg-type]


# --- photographs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILTIN_PHOTOS)
def test_builtin_photos(name: str) -> None:
    photo = as_image(builtin_photo(name, 32))
    assert photo.shape == (1, 3, 32, 32) and photo.std() > 0.1
    assert not torch.equal(photo[:, 0], photo[:, 1])  # in colour
    assert ";" in data.PHOTOS[name].credit  # author; licence


def test_builtin_photo_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_error("unknown photo 'Coffe': did you mean 'coffee'"):
        builtin_photo("Coffe")
    monkeypatch.setattr(data, "find_spec", lambda _: None)
    with one_error("pip install scikit-learn"):
        builtin_photo("china")


def test_photo_crops() -> None:
    few, more = photo_crops(24, 8, seed=3), photo_crops(24, 14, seed=3)
    assert as_image(more.images).shape == (14, 3, 24, 24)
    assert torch.equal(few.images, more.images[:8]) and few.photos == more.photos[:8]
    assert more.photos[:6] == BUILTIN_PHOTOS and more.photos[6] == BUILTIN_PHOTOS[0]
    assert not torch.equal(more.images[0], more.images[6])
    assert not torch.equal(few.images, photo_crops(24, 8, seed=4).images)
    assert photo_crops(300, 2).images.shape == (2, 3, 300, 300)


@pytest.mark.parametrize(("size", "count", "seed"), [(4, 1, 0), (0, 1, 0), (301, 6, 0), (24, 0, 0), (24, 1, -1)])
def test_photo_crops_errors(size: int, count: int, seed: int) -> None:
    with one_error("(size|count)="):
        photo_crops(size, count, seed)


# --- errors -----------------------------------------------------------------------------------------------------


def test_errors() -> None:
    assert issubclass(InputError, ValueError)
    assert nearest("ddmn", ("DDNM", "DPS")) == "DDNM" and nearest("qqq", ("DDNM",)) is None
    assert str(unknown("host", "dpss", ("ddnm", "dps"))) == "unknown host 'dpss': did you mean 'dps'? choose one of ddnm, dps"
    assert str(unknown("host", 3, ("ddnm",))) == "unknown host 3: choose one of ddnm"
    assert one_line(OSError("a\n b")) == "a b" and one_line(EOFError()) == "EOFError"
