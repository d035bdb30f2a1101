"""Make the folder of photographs that the photo priors were trained and measured on, from the packages they are from.

    mkdir packages && cd packages && apt-get download gcompris-qt-data=3.1-2 ...   (Debian 12; the script names what it lacks)
    python scripts/photos.py --packages packages --out photos [--split test]

`benchmarks/photos.csv` names for each photograph the package, the path inside it, and SHA-256 sums of the original and of the
prepared file. An original with another sum is refused. What is there already, with the right sum, is not made again. The sums
of prepared files hold for Pillow 13.0 with libjpeg-turbo 3.2 and libwebp 1.6; other versions may round a pixel or order the
bytes otherwise, which is reported and is no error: such a photograph is the same picture, and numbers move in late digits.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import lzma
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from leader_nb.data import atomic_write
from leader_nb.errors import InputError, one_line

TABLE = Path(__file__).parent.parent / "benchmarks" / "photos.csv"
LONGEST, QUALITY, WEBP_QUALITY = 1024, 93, 92  # pixels of the longer side; of JPEG

Row = dict[str, str]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- packages -----------------------------------------------------------------------------------------------------


def find_package(folder: Path, package: str, version: str) -> Path | None:
    """The .deb of this version in `folder`; apt-get writes the colon of a version as %3a."""
    names = (f"{package}_{version.replace(':', '%3a')}_", f"{package}_{version.partition(':')[2] or version}_")
    return next((p for p in sorted(folder.glob("*.deb")) if p.name.startswith(names)), None)


def package_files(deb: Path, wanted: set[str]) -> dict[str, bytes]:
    """The files of a Debian package (an ar archive that holds a tar archive) whose paths are `wanted`."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data_member(deb)), mode="r|*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in wanted and member.isfile() and (file := archive.extractfile(member)):
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"packages: {deb} cannot be unpacked ({one_line(error)}); download it again") from None
    if missing := sorted(wanted - set(found)):
        raise InputError(f"packages: {deb} has no {missing[0]}, and lacks {len(missing)} in all; it is another version")
    return found


def data_member(deb: Path) -> bytes:
    """The member data.tar.* of an ar archive: headers of 60 bytes, each before its content, which begins at even places."""
    content = deb.read_bytes()
    place = 8
    while content.startswith(b"!<arch>\n") and place + 60 <= len(content):
        name, size = content[place : place + 16].decode("ascii", "replace").strip(" /"), content[place + 48 : place + 58]
        if not size.strip().isdigit() or place + 60 + int(size) > len(content):
            break
        if name.startswith("data.tar"):
            return content[place + 60 : place + 60 + int(size)]
        place += 60 + int(size) + int(size) % 2
    raise InputError(f"packages: {deb} is no complete Debian package; download it again")


def resources(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(path, content) of every file in a Qt resource file (.rcc), stored as it is or with zlib.

    A tree of nodes, big-endian: place of the name, flags, then (folders, flag 2) number and index of the first child, or
    (files) country, language and place of the data. Names are their length, a hash, UTF-16; data their length and bytes.
    """
    magic, version, tree, data, names = struct.unpack_from(">4s4i", content)
    if magic != b"qres":
        raise ValueError("it does not begin with qres")
    waiting, width = [(0, "")], 22 if version >= 2 else 14  # from version 2 on, nodes have a date
    while waiting:
        node, path = waiting.pop()
        name, flags, first, second = struct.unpack_from(">IHII", content, tree + node * width)
        if node:
            (length,) = struct.unpack_from(">H", content, names + name)
            text = content[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
            path = f"{path}/{text}" if path else text
        if flags & 2:
            waiting += [(second + i, path) for i in range(first) if second + i > node]  # children come later: no loops
        else:
            place = data + second
            (size,) = struct.unpack_from(">I", content, place)
            stored = content[place + 4 : place + 4 + size]
            yield path, zlib.decompress(stored[4:]) if flags & 1 else stored


def originals(deb: Path, rows: Iterable[Row]) -> Iterator[tuple[Row, bytes]]:
    """Each row with its original photograph, whose sum has been compared."""
    rows = list(rows)
    files = package_files(deb, {row["member"] for row in rows})
    inside: dict[str, dict[str, bytes]] = {}
    for row in rows:
        content, where = files[row["member"]], f"{row['member']} of {deb}"
        if row["resource"]:
            try:
                inside.setdefault(row["member"], dict(resources(content)))
                content = inside[row["member"]][row["resource"]]
            except (struct.error, ValueError, KeyError, zlib.error) as error:
                raise InputError(f"packages: {where} has no readable {row['resource']} ({one_line(error)})") from None
        if sha256(content) != row["original_sha256"]:
            raise InputError(f"packages: {where} is not the original of {row['file']}: its SHA-256 sum is another one")
        yield row, content


# --- photographs --------------------------------------------------------------------------------------------------


def prepared(original: bytes) -> bytes:
    """The JPEG of the set: longer side at most 1024 pixels (Lanczos, never enlarged), quality 93, full chroma.

    WebP originals were JPEG of quality 92 with halved chroma for a while, and still are on their way here.
    """
    with Image.open(io.BytesIO(original)) as image:
        webp, picture = image.format == "WEBP", image.convert("RGB")
    if webp:
        between = io.BytesIO()
        picture.save(between, "JPEG", quality=WEBP_QUALITY)
        picture = Image.open(between).convert("RGB")
    scale = LONGEST / max(picture.size)
    if scale < 1:
        size = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, subsampling=0)
    return out.getvalue()


def is_made(path: Path, row: Row) -> bool:
    return path.is_file() and sha256(path.read_bytes()) == row["sha256"]


def make(table: Path, packages: Path, out: Path, split: str | None = None) -> tuple[int, int, list[str]]:
    """Makes what is not there yet; returns how many were made, of how many, and the files that came out with other bytes."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if split in (None, row["split"])]
    todo = [row for row in rows if not is_made(out / row["file"], row)]
    versions = dict.fromkeys((row["package"], row["version"]) for row in todo)
    debs = {package: find_package(packages, package, version) for package, version in versions}
    if lacking := [f"{package}={version}" for package, version in versions if debs[package] is None]:
        raise InputError(f"packages: {packages} lacks {len(lacking)}; in that folder: apt-get download {' '.join(lacking)}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot make {out} ({error.strerror}); give another folder") from None
    atomic_write(out / "photos.csv", lambda file: file.write(table.read_bytes()))  # says which are train and which test
    other = []
    for package, deb in debs.items():
        assert deb is not None
        for row, original in originals(deb, [row for row in todo if row["package"] == package]):
            content = prepared(original)
            atomic_write(out / row["file"], lambda file, content=content: file.write(content))
            if sha256(content) != row["sha256"]:
                other.append(row["file"])
        print(f"{package}: {sum(row['package'] == package for row in todo)} photographs")
    return len(todo), len(rows), other


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the .deb files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the photographs")
    parser.add_argument("--split", choices=("train", "test"), help="only these; all by default")
    parser.add_argument("--table", type=Path, default=TABLE)
    args = parser.parse_args()
    try:
        made, total, other = make(args.table, args.packages, args.out, args.split)
    except InputError as error:
        print(f"photos: {error}", file=sys.stderr)
        return 2
    print(f"{made} of {total} photographs made in {args.out}, {total - made} were there; photos.csv there has the splits")
    if other:
        print(
            f"{len(other)} have other bytes than the table's (another version of Pillow or its codecs): {', '.join(other[:5])}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
