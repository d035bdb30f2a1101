"""The folder of photographs from packages: made-up packages, and the committed table against the model card."""

from __future__ import annotations

import csv
import hashlib
import io
import lzma
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photos
from leader_nb.errors import InputError
from leader_nb.train import image_files

WIDE, FLOWER, GREY = "usr/share/wide.jpg", "app/resource/flower.webp", "app/resource/deep/grey.png"
RCC = "usr/share/pictures.rcc"


def encoded(width: int, height: int, kind: str, **options: object) -> bytes:
    """A smooth colour picture as a file."""
    down, across = np.mgrid[0:height, 0:width]
    pixels = np.stack([across * 255 // width, down * 255 // height, (across + down) % 256], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def qt_resources(files: dict[str, bytes], packed: bool = False) -> bytes:
    """A Qt resource file, version 3, with the tree of folders laid out level by level."""
    nodes: list[tuple[str, bytes | None, list]] = [("", None, [])]
    for path, content in files.items():
        here = nodes[0][2]
        for part in path.split("/")[:-1]:
            found = next((n for n in here if n[0] == part), None)
            if found is None:
                found = (part, None, [])
                here.append(found)
            here = found[2]
        here.append((path.rsplit("/", 1)[-1], content, []))
    for node in nodes:
        nodes.extend(node[2])  # the list grows as it is walked: breadth first
    tree, names, data, first = b"", b"", b"", 1
    for name, content, children in nodes:
        if content is None:
            tree += struct.pack(">IHIIQ", len(names), 2, len(children), first, 0)
            first += len(children)
        else:
            tree += struct.pack(">IHHHIQ", len(names), int(packed), 0, 1, len(data), 0)
            stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
            data += struct.pack(">I", len(stored)) + stored
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    start = 24
    return struct.pack(">4s5i", b"qres", 3, start, start + len(tree), start + len(tree) + len(data), 0) + tree + data + names


def debian(files: dict[str, bytes], compress: Callable[[bytes], bytes] = lzma.compress, name: str = "data.tar.xz") -> bytes:
    """A Debian package with these files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for path, content in files.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    out = b"!<arch>\n"
    for member, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, compress(tar.getvalue()))):
        out += (
            f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content + b"\n" * (len(content) % 2)
        )
    return out


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Made:
    """Two packages with three photographs, and their table; `originals` by the name of the prepared file."""

    def __init__(self, root: Path) -> None:
        self.packages, self.out, self.table = root / "packages", root / "out", root / "table.csv"
        self.packages.mkdir()
        wide = encoded(1500, 1001, "JPEG", quality=98, comment=b"hello")
        flower, grey = encoded(300, 200, "WEBP", lossless=True), encoded(40, 30, "PNG")
        self.originals = {"000.jpg": wide, "001.jpg": flower, "002.jpg": grey}
        self.deb = self.packages / "walls_4%3a1.0-2_all.deb"
        self.deb.write_bytes(debian({WIDE: wide, "usr/other": b"x"}))
        self.toys = self.packages / "toys_2.1_all.deb"
        self.toys.write_bytes(debian({RCC: qt_resources({FLOWER: flower, GREY: grey, "app/main.qml": b"code"}, packed=True)}))
        where = {"000.jpg": ("walls", "4:1.0-2", WIDE, ""), "001.jpg": ("toys", "2.1", RCC, FLOWER)}
        where["002.jpg"] = ("toys", "2.1", RCC, GREY)
        rows = [
            (file, "test" if file == "001.jpg" else "train", *place, sha(self.originals[file]), self.final(file))
            for file, place in where.items()
        ]
        names = ("file", "split", "package", "version", "member", "resource", "original_sha256", "sha256")
        with self.table.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])

    def final(self, file: str) -> str:
        return sha(photos.prepared(self.originals[file]))

    def run(self, *more: str) -> int:
        places = ("--packages", str(self.packages), "--out", str(self.out), "--table", str(self.table))
        sys.argv = ["photos.py", *places, *more]
        return photos.main()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(sys, "argv", [])
    return Made(tmp_path)


# --- the photographs ----------------------------------------------------------------------------------------------


def test_the_folder_is_made_and_has_its_splits(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert made.run() == 0
    assert "3 of 3 photographs made" in capsys.readouterr().out
    for file in made.originals:
        assert sha((made.out / file).read_bytes()) == made.final(file)
    assert [p.name for p in image_files(made.out, "test")] == ["001.jpg"]
    assert [p.name for p in image_files(made.out, "train")] == ["000.jpg", "002.jpg"]


def test_the_rule(made: Made) -> None:
    """Longer side 1024, never enlarged, full chroma at quality 93, and close to the original."""
    shown = {file: Image.open(io.BytesIO(photos.prepared(original))) for file, original in made.originals.items()}
    assert [shown[file].size for file in sorted(shown)] == [(1024, 683), (300, 200), (40, 30)]
    reference = io.BytesIO()
    Image.new("RGB", (8, 8)).save(reference, "JPEG", quality=93)
    for file, image in shown.items():
        assert image.quantization == Image.open(reference).quantization and image.format == "JPEG"
        assert all(layer[1:3] == (1, 1) for layer in image.layer), "4:4:4"
        original = Image.open(io.BytesIO(made.originals[file])).convert("RGB").resize(image.size, Image.Resampling.LANCZOS)
        difference = np.asarray(image.convert("RGB")).astype(float) - np.asarray(original)
        assert np.sqrt((difference**2).mean()) < 8, file


def test_webp_takes_the_detour_and_others_do_not() -> None:
    webp, png = encoded(64, 48, "WEBP", lossless=True), encoded(64, 48, "PNG")
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in (webp, png))), "the same pixels"
    between = io.BytesIO()
    Image.open(io.BytesIO(png)).save(between, "JPEG", quality=92)
    assert photos.prepared(webp) == photos.prepared(between.getvalue()) != photos.prepared(png)


def test_it_goes_on_where_it_stopped(made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there is not made again; a damaged file is; and packages that nothing is needed from may be gone."""
    calls = []
    once = photos.prepared

    def stops(original: bytes) -> bytes:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(original)
        return once(original)

    monkeypatch.setattr(photos, "prepared", stops)
    with pytest.raises(KeyboardInterrupt):
        made.run()
    assert len(list(made.out.glob("*.jpg"))) == 2
    monkeypatch.setattr(photos, "prepared", lambda original: calls.append(original) or once(original))
    assert made.run() == 0 and len(calls) == 3
    (made.out / "000.jpg").write_bytes(b"damaged")
    made.toys.unlink()
    assert made.run() == 0 and len(calls) == 4 and "1 of 3 photographs made" in capsys.readouterr().out
    made.deb.unlink()
    assert made.run() == 0 and len(calls) == 4


def test_one_split(made: Made) -> None:
    made.deb.unlink()
    assert made.run("--split", "test") == 0
    assert [p.name for p in made.out.glob("*.jpg")] == ["001.jpg"]


def test_other_bytes_are_reported_and_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(photos, "QUALITY", 92)  # stands in for another codec
    assert made.run() == 0
    assert "3 have other bytes than the table's" in capsys.readouterr().out
    assert len(list(made.out.glob("*.jpg"))) == 3


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_packages_that_are_not_there_are_named_before_any_work(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.toys.rename(made.packages / "toys_2.10_all.deb")
    made.deb.unlink()
    assert made.run() == 2
    said = capsys.readouterr().err
    assert "lacks 2" in said and "apt-get download walls=4:1.0-2 toys=2.1" in said
    assert not made.out.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "is no complete Debian package; download it again"),
        (b"", "is no complete Debian package"),
        (debian({"usr/other": b"x"}), "lacks 1 in all; it is another version"),
        (debian({WIDE: b"something else"}), "is not the original of 000.jpg: its SHA-256 sum is another one"),
        (debian({WIDE: b"x"}, lambda tar: lzma.compress(tar)[:100]), "cannot be unpacked"),
        (debian({WIDE: b"x"}, lambda tar: lzma.compress(tar)[:60] + b"?" * 200), "cannot be unpacked"),
        (debian({WIDE: b"x"}, lambda tar: b"zstd", "data.tar.zst"), "cannot be unpacked"),
    ],
)
def test_a_package_that_is_not_the_one(content: bytes, message: str, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.deb.write_bytes(content)
    assert made.run() == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and made.deb.name in said
    assert not (made.out / "000.jpg").exists()


def test_a_package_that_is_cut_short(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.deb.write_bytes(made.deb.read_bytes()[:-5000])
    assert made.run() == 2 and "is no complete Debian package; download it again" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"qres", b"odd" * 20, qt_resources({"app/else.png": b"x"})])
def test_a_resource_file_that_is_not_the_one(content: bytes, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.toys.write_bytes(debian({RCC: content}))
    assert made.run() == 2
    assert f"{RCC} of {made.toys} has no readable {FLOWER}" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [False, True])
def test_qt_resources(packed: bool) -> None:
    files = {"a/b/c.txt": b"one", "a/d.txt": b"two" * 100, "e.txt": b"", "a/b/f.txt": b"three"}
    assert dict(photos.resources(qt_resources(files, packed))) == files


def test_a_folder_that_cannot_be_made(made: Made) -> None:
    made.out.write_text("a file")
    assert made.run() == 2
    with pytest.raises(InputError, match="out: cannot make"):
        photos.make(made.table, made.packages, made.out)


# --- the committed table -------------------------------------------------------------------------------------------


def test_the_card_lists_what_the_table_has() -> None:
    """Every photograph once, under its own split, with the licence and the holder that the table gives."""
    with photos.TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    card = (Path(photos.__file__).parent.parent / "leader_nb" / "weights" / "photo-small.md").read_text(encoding="utf-8")
    train, test = card.split("The 23 test photographs")
    for split, part in (("train", train), ("test", test)):
        listed = re.findall(r"^\| (\d{3}\.jpg) \| (\S+) \| (\S+) \| (.+?) \| (\S+) \| (.+) \|$", part, re.MULTILINE)
        wanted = [row for row in rows if row["split"] == split]
        assert [line[0] for line in listed] == [row["file"] for row in wanted]
        for (_, package, version, name, licence, holder), row in zip(listed, wanted, strict=True):
            assert (package, version, licence, holder) == tuple(row[k] for k in ("package", "version", "licence", "holder"))
            assert (row["resource"] or row["member"]).endswith(name.split(": ")[-1])
    assert len(rows) == 183 and len({row["sha256"] for row in rows}) == 183
    assert len({row["original_sha256"] for row in rows}) == 183, "no photograph is in both splits"
    assert all(len(bytes.fromhex(row[key])) == 32 for row in rows for key in ("sha256", "original_sha256"))
