"""State that travels with a batch: dictionaries of (B, ...) tensors, so that images can leave and enter."""

from __future__ import annotations

from torch import Tensor

Tree = dict[str, Tensor]


def rows(tree: Tree, index: Tensor) -> Tree:
    """The state of some images of the batch."""
    return {name: value[index.to(value.device)] for name, value in tree.items()}


def put(tree: Tree, index: Tensor, part: Tree) -> Tree:
    """`tree` with the rows `index` replaced by `part`; entries that `tree` lacks start at zero. Nothing is changed in place."""
    batch = len(next(iter(tree.values()))) if tree else int(index.max()) + 1
    merged = dict(tree)
    for name, value in part.items():
        base = tree[name].clone() if name in tree else value.new_zeros((batch, *value.shape[1:]))
        base[index.to(value.device)] = value
        merged[name] = base
    return merged
