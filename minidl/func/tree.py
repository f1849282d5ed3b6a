"""Trees of tensors: tuples, lists and dictionaries, taken apart and put together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from minidl.errors import ArgumentError


def flatten(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The leaves in order, and a function that builds the same tree of other leaves."""
    leaves: list[Any] = []
    build = _walk(tree, leaves)
    return leaves, lambda values: build(iter(values))


def _walk(tree: Any, leaves: list[Any]) -> Callable[[Any], Any]:
    kind = type(tree)
    if kind in (tuple, list):
        builders = [_walk(item, leaves) for item in tree]
        return lambda values: kind([build(values) for build in builders])
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        builders = [_walk(item, leaves) for item in tree]
        return lambda values: kind(*[build(values) for build in builders])
    if kind in (dict, OrderedDict):
        pairs: Any = tree
        named = {key: _walk(item, leaves) for key, item in pairs.items()}
        return lambda values: kind((key, build(values)) for key, build in named.items())
    leaves.append(tree)
    return next


def mapped(function: Callable[..., Any], tree: Any) -> Any:
    """The tree of the values of `function`."""
    leaves, build = flatten(tree)
    return build([function(leaf) for leaf in leaves])


def broadcast(prefix: Any, tree: Any, name: str) -> list[Any]:
    """A value for every leaf of `tree`, from a tree whose leaves stand for all below them."""
    is_tree = isinstance(prefix, tuple | list | dict)
    if not is_tree:
        return [prefix] * len(flatten(tree)[0])
    fits = type(tree) is type(prefix) or (
        isinstance(prefix, tuple | list) and isinstance(tree, tuple | list)
    )
    if not fits or len(prefix) != len(tree):
        raise ArgumentError(
            f"{name} does not have the structure of what it is for", operator="vmap"
        )
    if isinstance(prefix, dict):
        return [v for key in tree for v in broadcast(prefix[key], tree[key], name)]
    pairs = zip(prefix, tree, strict=True)
    return [value for part, item in pairs for value in broadcast(part, item, name)]
