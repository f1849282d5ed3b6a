"""The scheme of optimisers that step one parameter after the other with operators."""

from __future__ import annotations

from typing import Any

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.dtypes import float32
from minidl.errors import ArgumentError
from minidl.optim.optimizer import Optimizer
from minidl.tensor import Tensor


class ParameterwiseOptimizer(Optimizer):
    """An optimiser that says what one parameter starts with and how it is stepped.

    A subclass defines `_fresh`, which makes the state of a parameter that has none (tensors: the
    scalars of `_scalars` and others), and `_advance`, which steps the parameter in place. `step` in
    the state is counted up before, and the gradient is negated by `maximize`.
    """

    _scalars = ("step",)

    def _fresh(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Make the state of a parameter that is stepped for the first time."""
        raise NotImplementedError

    def _advance(
        self, param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Step `param` in place and bring `state` up to date; `grad` is not written."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        with no_grad():
            for param, grad in zip(params, grads, strict=True):
                state = self.state[param]
                if not state:
                    state.update(self._fresh(param, group))
                if "step" in state:
                    state["step"] += 1
                self._advance(param, -grad if group.get("maximize") else grad, state, group)

    def _adopt(self, state: dict[str, Any]) -> None:
        """Refuse another optimiser's state; accept scalars that are plain numbers."""
        wanted = set(self._scalars) | set(self._tensors)
        if state and not wanted <= state.keys():
            raise ArgumentError(
                f"the state must have {', '.join(sorted(wanted))}",
                operator="load_state_dict",
                got=", ".join(map(str, state)),
            )
        for name in self._scalars:
            if state and not isinstance(state[name], Tensor):
                state[name] = scalar(float(state[name]))

    # The tensors of the parameter's shape that every state has.
    _tensors: tuple[str, ...] = ()


def scalar(value: float) -> Tensor:
    """A number of the state as PyTorch keeps it, in float32, so that checkpoints pass both ways."""
    return ops.tensor(value, dtype=float32)


def decayed(param: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
    """The gradient of the loss with the penalty `weight_decay / 2 * param ** 2`."""
    decay = group["weight_decay"]
    return grad.add(param, alpha=decay) if decay else grad
