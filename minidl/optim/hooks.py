"""Hooks of optimisers: functions called around `step`, `state_dict` and `load_state_dict`.

The order and the arguments are those of `torch.optim.Optimizer`.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

from minidl.autograd import RemovableHandle
from minidl.errors import DTypeError

_Step = TypeVar("_Step", bound=Callable[..., Any])
_Table = OrderedDict[int, Callable[..., Any]]

_every_step_pre: _Table = OrderedDict()
_every_step_post: _Table = OrderedDict()


def _add(table: _Table, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
    handle = RemovableHandle(table)
    table[handle.id] = hook
    if prepend:
        table.move_to_end(handle.id, last=False)
    return handle


class Hooked:
    """The part of an optimiser that keeps hooks; one without any pays a look at two tables."""

    _stepping = False

    def __init__(self) -> None:
        self._step_pre: _Table = OrderedDict()
        self._step_post: _Table = OrderedDict()
        self._state_dict_pre: _Table = OrderedDict()
        self._state_dict_post: _Table = OrderedDict()
        self._load_state_dict_pre: _Table = OrderedDict()
        self._load_state_dict_post: _Table = OrderedDict()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "step" in vars(cls):
            cls.step = with_step_hooks(vars(cls)["step"])  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: everything but the hooks, which belong to this optimiser."""
        kept = {key: value for key, value in vars(self).items() if key != "_stepping"}
        return {**kept, **{key: OrderedDict() for key in _TABLES}}

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before each step.

        `args` begins with the optimiser. A pair (args, kwargs) that it returns is used instead.
        """
        return _add(self._step_pre, hook)

    def register_step_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return _add(self._step_post, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[..., None], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer)` before `state_dict`."""
        return _add(self._state_dict_pre, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` after `state_dict`; a result is returned instead."""
        return _add(self._state_dict_post, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer, state_dict)` before loading; a result is loaded instead."""
        return _add(self._load_state_dict_pre, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[..., None], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(optimizer)` after loading."""
        return _add(self._load_state_dict_post, hook, prepend)


_TABLES = tuple(vars(Hooked()))


def with_step_hooks(step: _Step) -> _Step:
    """`step`, which calls the hooks when it is the outermost one of its optimiser."""

    @functools.wraps(step)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        hooks = self._step_pre or self._step_post or _every_step_pre or _every_step_post
        if not hooks or self._stepping:
            return step(self, *args, **kwargs)
        given = (self, *args)
        self._stepping = True
        try:
            for hook in chain(_every_step_pre.values(), self._step_pre.values()):
                result = hook(self, given, kwargs)
                if result is not None:
                    given, kwargs = _arguments(self, result)
            out = step(*given, **kwargs)
            for hook in chain(self._step_post.values(), _every_step_post.values()):
                hook(self, given, kwargs)
        finally:
            del self._stepping
        return out

    return hooked  # type: ignore[return-value]


def _arguments(optimizer: Any, result: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not (isinstance(result, tuple) and len(result) == 2):
        raise DTypeError(
            "a hook before step returns None or a pair (args, kwargs)",
            operator=type(optimizer).__name__,
            got=type(result).__name__,
        )
    return result


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` before each step of every optimiser."""
    return _add(_every_step_pre, hook)


def register_optimizer_step_post_hook(hook: Callable[..., None]) -> RemovableHandle:
    """Call `hook(optimizer, args, kwargs)` after each step of every optimiser."""
    return _add(_every_step_post, hook)
