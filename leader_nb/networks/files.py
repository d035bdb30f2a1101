"""Networks on disk: safetensors with the configuration in the header; never a pickle that can run code."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from leader_nb.errors import InputError, one_line
from leader_nb.networks.unet import Denoiser, UNetConfig


def save_denoiser(path: str | Path, model: Denoiser, metadata: dict[str, str], dtype: torch.dtype) -> None:
    """Write `model` as safetensors in `dtype` (fp16 halves the file), atomically, with its configuration."""
    path = Path(path)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    header = {"config": json.dumps(model.config.to_dict(), sort_keys=True), **metadata}
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(save(tensors, metadata=header))
    os.replace(partial, path)


def load_denoiser(path: str | Path) -> tuple[Denoiser, dict[str, str]]:
    """Read a denoiser written by :func:`save_denoiser` as float32, in eval mode, with its metadata.

    Raises InputError for a missing, truncated or foreign file, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: no file at {path}; give a .safetensors file or the name of a built-in prior")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            state = {k: file.get_tensor(k).float() for k in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path} is not a complete safetensors file ({error})") from None
    if "config" not in header:
        raise InputError(f"weights: {path} has no network configuration in its header; was it made by leader-nb train?")
    try:
        raw = json.loads(header["config"])
        config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        model = Denoiser(UNetConfig(**config))
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"weights: {path} has a network configuration we cannot read ({one_line(error)})") from None
    _fill(model, state, path)
    return model.eval().requires_grad_(False), header


def _fill(model: Denoiser, state: dict[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        raise InputError(f"weights: {path} does not fit its own configuration; first mismatches: {', '.join(wrong[:3])}")
    bad = [k for k, v in state.items() if not torch.isfinite(v).all()]
    if bad:
        raise InputError(f"weights: {path} holds values that are not finite, first in {bad[0]}")
    model.load_state_dict(state)


def sha256(path: str | Path) -> str:
    """The file's sha256 in hexadecimal: its identity in reports and cache keys."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
