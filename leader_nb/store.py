"""The rows of the big table on disk: `table.csv`, whole after every batch, and the same as `table.parquet`.

The CSV is the one that is read back; Parquet is written beside it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from leader_nb.data import atomic_write
from leader_nb.errors import InputError, one_line

CSV, PARQUET, LOCK = "table.csv", "table.parquet", ".table.lock"
WAIT = 60.0  # seconds for another process to finish writing

# Name -> pandas dtype. Int64 knows missing values: a row that failed has no NFE.
COLUMNS: dict[str, str] = {
    "host": "str",
    "task": "str",
    "plugin": "str",
    "image": "str",
    "psnr": "float64",  # dB
    "lpips": "float64",  # alex
    "ssim": "float64",
    "residual": "float64",  # rms of A x - y, in [-1, 1] units
    "nfe": "Int64",
    "backward": "Int64",
    "seconds": "float64",  # this image's share of the wall time
    "cpu_seconds": "float64",  # and of the processor time, which others on the machine disturb less
    "batch": "Int64",  # images that were restored together
    "buffers": "float64",  # peak memory beside the network, in images
    "seed": "Int64",
    "size": "Int64",
    "steps": "Int64",
    "sampler": "str",
    "options": "str",
    "prior": "str",
    "weights": "str",  # sha256 of the prior's file
    "leader_nb": "str",
    "torch": "str",
    "source": "str",  # sha256 of the code that decides the row
    "machine": "str",
    "device": "str",
    "threads": "Int64",
    "date": "str",
    "error": "str",
    "key": "str",
}
# What a row is about; the key says whether it is up to date. A newer row takes the place of an older one.
IDENTITY = ["host", "task", "plugin", "image", "prior", "size", "steps", "seed"]


@dataclass(frozen=True)
class Store:
    """The table in a folder, which is made when the first rows come."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / CSV

    def read(self) -> pd.DataFrame:
        """All rows, none where there is no file. Raises `InputError` where the file is damaged or another table."""
        if not self.path.exists():
            return as_rows([])
        try:
            return parse(self.path.read_bytes())
        except (OSError, ValueError, TypeError, ArithmeticError) as error:
            raise InputError(
                f"table: {self.path} is damaged or no table of ours ({one_line(error)}); move it away to start afresh"
            ) from None

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows, in place of older ones with their identity. A kill leaves the old file or the new one, whole."""
        new = as_rows(rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locked():
            old = self.read()
            both = pd.concat([old, new], ignore_index=True) if len(old) else new
            latest = both.drop_duplicates(IDENTITY, keep="last")
            self.write(latest.sort_values(IDENTITY, ignore_index=True))

    def write(self, rows: pd.DataFrame) -> None:
        text = rows.to_csv(index=False, lineterminator="\n").encode()
        atomic_write(self.path, lambda file: file.write(text))
        atomic_write(self.folder / PARQUET, lambda file: rows.to_parquet(file, index=False))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds off other processes that write here; the system frees the lock of one that is killed."""
        try:
            with FileLock(self.folder / LOCK, timeout=WAIT):
                yield
        except Timeout:
            raise InputError(f"out: another process has been writing in {self.folder} for {WAIT:.0f} s; end it first") from None


def as_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table with all COLUMNS in their types; what a row lacks is missing, or the empty text."""
    empty = {name: "" if kind == "str" else None for name, kind in COLUMNS.items()}
    table = pd.DataFrame([empty | dict(row) for row in rows], columns=list(COLUMNS))
    return table.astype(COLUMNS)


def parse(raw: bytes) -> pd.DataFrame:
    """The text of a table, checked: columns, types, no cut at the end, a key in every row."""
    if not raw.endswith(b"\n"):
        raise ValueError("it is cut short")
    head = raw.split(b"\n", 1)[0].decode().split(",")
    if head != list(COLUMNS):
        raise ValueError(f"its columns are {', '.join(head[:4])}, ..." if len(head) > 1 else "it has no columns")
    numbers = {name: [""] for name, kind in COLUMNS.items() if kind != "str"}
    with io.BytesIO(raw) as file:
        rows = pd.read_csv(
            file, dtype=COLUMNS, keep_default_na=False, na_values=numbers, float_precision="round_trip", index_col=False
        )
    bad = ~rows["key"].fillna("").str.fullmatch("[0-9a-f]{64}")
    if bad.any():
        raise ValueError(f"row {int(bad.to_numpy().argmax()) + 1} has no key")
    if (again := rows.duplicated(IDENTITY)).any():
        raise ValueError(f"row {int(again.to_numpy().argmax()) + 1} repeats an earlier one")
    return rows
