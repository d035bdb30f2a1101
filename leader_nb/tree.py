"""State that travels with a batch: dictionaries of (B, ...) tensors, so that images can leave and enter."""

from __future__ import annotations

import torch
from torch import Tensor

Tree = dict[str, Tensor]


def rows(tree: Tree, index: Tensor) -> Tree:
    """The state of some images of the batch."""
    return {name: value[index.to(value.device)] for name, value in tree.items()}


def joined(first: Tree, second: Tree, counts: tuple[int, int]) -> Tree:
    """`counts[0]` rows of the first, then `counts[1]` of the second. What one of them lacks is zero there: not `valid`."""
    merged = {}
    for name, known in {**second, **first}.items():
        blank = (known.new_zeros((count, *known.shape[1:])) for count in counts)
        merged[name] = torch.cat([tree.get(name, zeros) for tree, zeros in zip((first, second), blank, strict=True)])
    return merged


def put(tree: Tree, index: Tensor, part: Tree) -> Tree:
    """`tree` with the rows `index` replaced by `part`; entries that `tree` lacks start at zero. Nothing is changed in place."""
    batch = len(next(iter(tree.values()))) if tree else int(index.max()) + 1
    merged = dict(tree)
    for name, value in part.items():
        base = tree[name].clone() if name in tree else value.new_zeros((batch, *value.shape[1:]))
        base[index.to(value.device)] = value
        merged[name] = base
    return merged
