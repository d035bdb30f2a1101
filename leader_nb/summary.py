"""The big table, summed up: paired differences to the bare host, and the layouts of the LEADer paper's Tables 1 and 2.

Differences are taken photograph by photograph (same noise, same mask) and their intervals bootstrapped by photograph.
Time is processor time where a row was made on the CPU, since others on the machine disturb it less, and wall time else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from leader_nb.errors import InputError
from leader_nb.metrics import bootstrap_interval
from leader_nb.samplers import SAMPLERS
from leader_nb.tasks import TASKS

BASELINE = "none"
WORST_PSNR = -0.05  # dB: "no loss" means that the interval of the difference stays above this,
WORST_LPIPS = 0.003  # and that of LPIPS below this
SETUP = ["prior", "size", "steps"]
CELL = ["host", "task", "plugin"]
PAIR = [*SETUP, "weights", "host", "task", "image", "seed"]  # what a row shares with its row of the bare host
SCORES = ("psnr", "lpips", "ssim")
COMPARED = (*SCORES, "nfe", "time")
COSTS = ("nfe", "backward", "seconds", "cpu_seconds", "buffers")
MEANS = (*SCORES, *COSTS, "time")
LABELS = {
    "equs": "+ EquS",
    "global": "+ LEADer, one weight",
    "global-same-steps": "+ LEADer, one weight, its own steps",
    "global-tuned": "+ LEADer tuned, one weight",
    "global-searched": "+ one weight, tuned itself",
    "leader-paper": "+ LEADer (paper)",
    "leader": "+ LEADer",
    "leader-tuned": "+ LEADer tuned",
    "start": "+ measured start",
    "start-tuned": "+ measured start, share tuned",
    "leader-start": "+ LEADer, measured start",
    "modulate": "+ modulation",
    "steps": "+ step rule",
}
ORDER = {"host": SAMPLERS, "task": TASKS, "plugin": (BASELINE, *LABELS)}
TABLE_1 = (
    *(BASELINE, "equs", "global", "global-same-steps", "global-tuned", "global-searched"),
    *("leader-paper", "leader", "leader-tuned"),
    *("start", "start-tuned", "leader-start"),
)
TABLE_2 = {BASELINE: (False, False), "modulate": (True, False), "steps": (False, True), "leader": (True, True)}

# --- numbers ----------------------------------------------------------------------------------------------------


def summarise(rows: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """One row for each prior, size, steps, host, task and plug-in.

    n, failed          photographs that gave a result, rows that did not
    psnr, ..., time    means over the n;  psnr_std, lpips_std: standard deviations over them
    pairs              how many of them the baseline has too, and over these, for each x of SCORES, nfe and time:
    d_x, base_x        mean difference to the baseline, and the baseline's mean;  d_x_low, d_x_high: 95 % interval (SCORES)
    no_loss            True where d_psnr_low >= WORST_PSNR and d_lpips_high <= WORST_LPIPS, and nothing failed that the
                       baseline could do; missing where a metric is, for fewer than two photographs, and for the baseline
    """
    if rows.empty:
        raise InputError("table: it has no rows; compute some first")
    plain = rows.astype(dict.fromkeys(COSTS, "float64"))
    plain["time"] = plain["cpu_seconds"].where(plain["device"] == "cpu", plain["seconds"])
    base = plain[(plain["plugin"] == baseline) & (plain["error"] == "")]
    out = []
    for names, group in plain.groupby([*SETUP, *CELL], sort=False):
        row: dict[str, Any] = dict(zip([*SETUP, *CELL], names, strict=True))
        good = group[group["error"] == ""]
        row |= {"n": len(good), "failed": len(group) - len(good)}
        row |= {name: good[name].mean() for name in MEANS}
        row |= {f"{name}_std": good[name].std(ddof=0) for name in ("psnr", "lpips")}
        if row["plugin"] != baseline:
            row |= compared(good.merge(base, on=PAIR, suffixes=("", "_base")))
            row["no_loss"] = verdict(row, len(group.merge(base, on=PAIR)))
        out.append(row)
    return in_order(pd.DataFrame(out).reindex(columns=columns()))


def columns() -> list[str]:
    """The columns of :func:`summarise`."""
    paired = [f"{kind}_{name}" for name in COMPARED for kind in ("d", "base")]
    ends = [f"d_{name}_{end}" for name in SCORES for end in ("low", "high")]
    return [*SETUP, *CELL, "n", "failed", *MEANS, "psnr_std", "lpips_std", "pairs", *paired, *ends, "no_loss"]


def compared(pairs: pd.DataFrame) -> dict[str, Any]:
    """The differences of paired rows, with intervals over photographs where there are two or more."""
    found: dict[str, Any] = {"pairs": len(pairs)}
    for name in COMPARED:
        both = pairs[np.isfinite(pairs[name]) & np.isfinite(pairs[f"{name}_base"])]
        gap = both[name] - both[f"{name}_base"]
        found |= {f"d_{name}": gap.mean(), f"base_{name}": both[f"{name}_base"].mean()}
        if name in SCORES and both["image"].nunique() > 1:
            _, low, high = bootstrap_interval(gap.to_numpy(), groups=list(both["image"]))
            found |= {f"d_{name}_low": low, f"d_{name}_high": high}
    return found


def verdict(row: dict[str, Any], possible: int) -> bool | None:
    """Whether the plug-in does no harm; None where that cannot be said."""
    if row["pairs"] < possible:
        return False
    if "d_psnr_low" not in row or "d_lpips_high" not in row:
        return None
    return bool(row["d_psnr_low"] >= WORST_PSNR and row["d_lpips_high"] <= WORST_LPIPS)


def mixed(rows: pd.DataFrame) -> list[str]:
    """The cells whose rows were made by different code, versions, constants or weights, and should be made again."""
    makers = ["source", "leader_nb", "torch", "weights", "sampler", "options"]
    cells = rows[rows["error"] == ""].groupby([*SETUP, *CELL])[makers].nunique().max(axis=1)
    return [" ".join(map(str, names[len(SETUP) :])) for names in cells[cells > 1].index]


# --- layouts ----------------------------------------------------------------------------------------------------


def table_1(rows: pd.DataFrame, plugins: Sequence[str] = TABLE_1) -> pd.DataFrame:
    """The paper's Table 1: (host, plug-in) x (task, PSNR | LPIPS | Time), and the average change over the tasks in percent.

    Also "PSNR std" and "LPIPS std" over the photographs. Raises `InputError` for rows of several priors, sizes or steps.
    """
    only(rows, SETUP)
    means = summarise(rows)
    means = means[means["plugin"].isin(plugins)]
    names = {"psnr": "PSNR", "psnr_std": "PSNR std", "lpips": "LPIPS", "lpips_std": "LPIPS std", "time": "Time"}
    hosts, tasks = ordered(rows["host"], SAMPLERS), ordered(rows["task"], TASKS)
    index = [pair for pair in product(hosts, plugins) if (means[["host", "plugin"]] == pair).all(axis=1).any()]
    wide = means.rename(columns=names).pivot(index=["host", "plugin"], columns="task", values=list(names.values()))
    wide = wide.swaplevel(axis=1).reindex(columns=pd.MultiIndex.from_product([tasks, names.values()]))
    for name in ("psnr", "lpips", "time"):
        change = 100 * means[f"d_{name}"] / means[f"base_{name}"]
        wide["Avg. Δ", names[name]] = change.groupby([means["host"], means["plugin"]]).mean()
    return wide.reindex(pd.MultiIndex.from_tuples(index, names=["host", "plugin"])).astype("float64")


def table_2(rows: pd.DataFrame, host: str = "ddnm") -> pd.DataFrame:
    """The paper's Table 2, an ablation of one host: (Modulation, Steps, T) x (task, PSNR | LPIPS | Time | NFE).

    Modulation is all that the preset does to x0: UCPM, and in the calibrated one the map inside the likelihood too.
    """
    only(rows, SETUP[:2])
    means = summarise(rows[rows["host"] == host]) if (rows["host"] == host).any() else summarise(rows).iloc[:0]
    means = means[means["plugin"].isin(TABLE_2)]
    names = {"psnr": "PSNR", "lpips": "LPIPS", "time": "Time", "nfe": "NFE"}
    flags = pd.DataFrame([TABLE_2[p] for p in means["plugin"]], columns=["Modulation", "Steps"], index=means.index)
    means = means.rename(columns=names | {"steps": "T"}).join(flags)
    wide = means.pivot(index=["Modulation", "Steps", "T"], columns="task", values=list(names.values()))
    order = pd.MultiIndex.from_product([ordered(means["task"]), names.values()])
    wide = wide.swaplevel(axis=1).reindex(columns=order)
    return wide.sort_index(ascending=[True, True, False]).astype("float64")


def only(rows: pd.DataFrame, names: Iterable[str]) -> None:
    for name in names:
        if rows[name].nunique() > 1:
            found = ", ".join(map(str, sorted(rows[name].unique())))
            raise InputError(f"rows: they mix several values of {name} ({found}); pick one first")


def ordered(names: Iterable[str], known: Sequence[str] = ()) -> list[str]:
    """Each name once: those of `known` in its order, then the others as they come."""
    once = dict.fromkeys(names)
    return [*(name for name in known if name in once), *(name for name in once if name not in known)]


def in_order(means: pd.DataFrame) -> pd.DataFrame:
    """Rows by setup, then by host, task and plug-in in the order of ORDER."""
    place = {name: {v: i for i, v in enumerate(ordered(means[name], known))} for name, known in ORDER.items()}
    return means.sort_values(
        [*SETUP, *CELL],
        key=lambda column: column.map(place[column.name]) if column.name in place else column,
        ignore_index=True,
    )


# --- markdown ---------------------------------------------------------------------------------------------------


def report(rows: pd.DataFrame) -> str:
    """Everything in markdown: for each prior and size, Tables 1 (of each number of steps) and 2, and the differences."""
    parts = []
    for (prior, size), group in rows.groupby(["prior", "size"], sort=False):
        for steps, part in group.groupby("steps", sort=False):
            heading = f"## {prior}, {size} x {size} px, {steps} steps, {part['image'].nunique()} photographs"
            parts += [heading, markdown_1(table_1(part)), markdown_differences(summarise(part))]
        for host in ordered(group["host"], SAMPLERS):
            ablation = table_2(group, host)
            if len(ablation.index.droplevel("T").unique()) > 2:
                parts += [f"## Ablation on {host}", markdown_2(ablation)]
    if stale := mixed(rows):
        parts.append(f"Rows made by different code or constants share a cell; compute them again: {'; '.join(stale)}.")
    if failed := int((rows["error"] != "").sum()):
        parts.append(f"{failed} rows failed and are left out: see the column error.")
    return "\n\n".join(parts)


def markdown_1(table: pd.DataFrame) -> str:
    tasks = [task for task in ordered(table.columns.get_level_values(0)) if task != "Avg. Δ"]
    head = ["", *(f"{task} {name}" for task in tasks for name in ("PSNR ↑", "LPIPS ↓", "Time ↓"))]
    head += [f"Avg. Δ {name}" for name in ("PSNR", "LPIPS", "Time")]
    body = []
    for (host, plugin), row in table.iterrows():
        cells = [LABELS.get(plugin, f"+ {plugin}") if plugin != BASELINE else host]
        for task in tasks:
            cells += [
                spread(row[task, "PSNR"], row[task, "PSNR std"], 2),
                spread(row[task, "LPIPS"], row[task, "LPIPS std"], 3),
            ]
            cells.append(number(row[task, "Time"], "{:.2f} s"))
        cells += [number(row["Avg. Δ", name], "{:+.2f} %") for name in ("PSNR", "LPIPS", "Time")]
        body.append(cells)
    return markdown(head, body)


def markdown_2(table: pd.DataFrame) -> str:
    tasks = ordered(table.columns.get_level_values(0))
    forms = {"PSNR": "{:.2f}", "LPIPS": "{:.3f}", "Time": "{:.2f} s", "NFE": "{:.1f}"}
    head = ["Modulation", "Steps", "T", *(f"{task} {name}" for task in tasks for name in forms)]
    body = []
    for (modulation, steps, length), row in table.iterrows():
        marks = ["✓" if modulation else "×", "✓" if steps else "×", str(length)]
        body.append([*marks, *(number(row[task, name], form) for task in tasks for name, form in forms.items())])
    return markdown(head, body)


def markdown_differences(means: pd.DataFrame) -> str:
    """Differences to the host with 95 % intervals; "no loss" as in :func:`summarise`."""
    head = ["host", "task", "plug-in", "photos", "Δ PSNR [dB]", "Δ LPIPS", "NFE", "Δ NFE", "Δ time", "no loss"]
    body = []
    for _, row in means[means["pairs"].notna()].iterrows():
        cells = [row["host"], row["task"], row["plugin"], str(int(row["pairs"]))]
        cells += [interval(row, "psnr", 2), interval(row, "lpips", 3), number(row["nfe"], "{:.1f}")]
        cells += [number(row["d_nfe"], "{:+.1f}"), number(100 * row["d_time"] / row["base_time"], "{:+.1f} %")]
        body.append([*cells, "-" if pd.isna(row["no_loss"]) else "yes" if row["no_loss"] else "no"])
    return markdown(head, body) if body else "No plug-in was compared with its host."


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = [head, ["-" * width for width in widths], *body]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def number(value: float, form: str) -> str:
    return "N/A" if pd.isna(value) else form.format(value)


def spread(mean: float, deviation: float, digits: int) -> str:
    return "N/A" if pd.isna(mean) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def interval(row: pd.Series, name: str, digits: int) -> str:
    mean, low, high = (row[f"d_{name}{end}"] for end in ("", "_low", "_high"))
    if pd.isna(mean):
        return "N/A"
    form = f"{{:+.{digits}f}}"
    return form.format(mean) + ("" if pd.isna(low) else f" [{form.format(low)}, {form.format(high)}]")
