"""Adam (Kingma & Ba, ICLR 2015) as a function of its state, so that images can leave a batch half way."""

from __future__ import annotations

import torch
from torch import Tensor

from leader_nb.tree import Tree

DECAY, LEAST = (0.9, 0.999), 1e-8  # of the two averages; what keeps their quotient finite


def started(x: Tensor) -> Tree:
    """Adam's state before its first step from x (B, ...): the point, the averages of slope and of squared slope."""
    return {"x": x, "m": torch.zeros_like(x), "u": torch.zeros_like(x)}


def stepped(state: Tree, slope: Tensor, k: int, lr: float) -> Tree:
    """After the k-th step (k = 1, 2, ...), given the gradient at the point `x`; the averages are freed of their zero start."""
    m = DECAY[0] * state["m"] + (1 - DECAY[0]) * slope
    u = DECAY[1] * state["u"] + (1 - DECAY[1]) * slope.square()
    move = m / (1 - DECAY[0] ** k) / ((u / (1 - DECAY[1] ** k)).sqrt() + LEAST)
    return {"x": state["x"] - lr * move, "m": m, "u": u}
