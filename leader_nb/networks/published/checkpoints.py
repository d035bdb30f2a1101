"""Checkpoints of other projects, read as plain tensors: a pickle that asks to run code is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from leader_nb.data import no_file
from leader_nb.errors import InputError, one_line

SHOWN = 3  # mismatches named in a message


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch state dict (.pt, .pth, .ckpt), by name, on the CPU.

    Raises `InputError` where the file is missing, damaged, a web page, not a state dict, or a pickle with code in it.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "checkpoint")
    with path.open("rb") as file:
        start = file.read(64)
    if start.lstrip().startswith(b"<"):
        raise InputError(f"{path} is a web page ({path.stat().st_size} bytes), not a checkpoint: fetch it again")
    try:
        state = load_aligned(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise InputError(
                f"{path} is a pickle that asks to run code: refused; get it as .safetensors or a plain state dict"
            ) from None
        raise damaged(path, error) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise damaged(path, error) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        holds = ", ".join(map(str, list(state)[:SHOWN])) if isinstance(state, dict) else type(state).__name__
        raise InputError(f"{path} holds {holds or 'nothing'} rather than named tensors: save the state dict alone")
    return state


def load_aligned(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, copied out of it: where it leaves them in memory changes the last bits."""
    return {name: value.clone() for name, value in load_file(path).items()}


def damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is no complete checkpoint ({one_line(error)[:120]}): fetch it again")


def mismatches(network: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """What keeps `state` from fitting `network`, in the network's order; empty where it fits."""
    expected = network.state_dict()
    found = []
    for name, value in expected.items():
        if name not in state:
            found.append(f"{name} is missing")
        elif state[name].shape != value.shape:
            found.append(f"{name} is {tuple(state[name].shape)}, not {tuple(value.shape)}")
    return found + [f"{name} is unknown" for name in state if name not in expected]


def fill(network: nn.Module, state: dict[str, Tensor], dtype: torch.dtype, what: str) -> None:
    """Put `state` into a `network` on the meta device, as `dtype`, frozen and in evaluation mode.

    Raises `InputError`, beginning with `what`, where names or shapes differ or a value is not finite.
    """
    if found := mismatches(network, state):
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise InputError(f"weights: {what} does not fit: {'; '.join(found[:SHOWN])}{more}")
    cast = {name: value.to(dtype) for name, value in state.items()}
    if bad := [name for name, value in cast.items() if not torch.isfinite(value).all()]:
        raise InputError(f"weights: {what} has values that are not finite in {dtype}, first in {bad[0]}")
    network.load_state_dict(cast, assign=True)
    network.eval().requires_grad_(False)
