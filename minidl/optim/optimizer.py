"""Optimizer: parameter groups, state, and the step that subclasses fill in."""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from numbers import Real
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.autograd import enable_grad
from minidl.backends.cupy_gpu import capture
from minidl.errors import ArgumentError, DTypeError, MinidlError, UnsupportedError
from minidl.ops import training
from minidl.optim.hooks import (
    Hooked,
    register_optimizer_step_post_hook as register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook as register_optimizer_step_pre_hook,
    with_step_hooks,
)
from minidl.tensor import Tensor

# A graph holds a training step, of which the draws must differ from replay to replay.


class Optimizer(Hooked):
    """Base of all optimisers.

    `params` is an iterable of parameters, of pairs (name, parameter) as
    `model.named_parameters()` gives them, or of dictionaries with "params" and own options.
    `state` maps a parameter to what the optimiser remembers of it. A subclass defines
    `_update(group, params, grads)`, which steps the parameters that have a gradient in one kernel
    call, or overrides `step` as a whole.
    """

    # What the schedules look at, to warn where they run before the first step.
    _steps_taken = 0
    # Whether `_update` is one kernel entry, which in a graph takes the numbers of each replay.
    _capturable = False
    # The names of state tensors whose shape is not the parameter's.
    _unlike: tuple[str, ...] = ("eta", "mu", "mu_product")

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        super().__init__()
        if isinstance(params, Tensor | dict) or not isinstance(params, Iterable):
            raise DTypeError(
                "params must be an iterable of tensors or dictionaries",
                operator=type(self).__name__,
                got=type(params).__name__,
            )
        self._check_options(defaults)
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups = list(params)
        if not groups:
            raise ArgumentError("the parameter list is empty", operator=type(self).__name__)
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, such as thawed layers.

        Parameters may be pairs (name, parameter), in all groups or in none; the group then has
        "param_names", too. Raises ArgumentError (a ValueError) for a parameter that is in a group
        already, is the result of an operator or lacks a name, DTypeError (a TypeError) for what is
        not a tensor.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise DTypeError(
                'a parameter group must be a dictionary with "params"',
                operator=name,
                got=type(param_group).__name__,
            )
        params = param_group["params"]
        if isinstance(params, set):
            raise DTypeError(
                "parameters need an order, which a set does not keep; pass a list", operator=name
            )
        params = [params] if isinstance(params, Tensor) else list(params)
        params, names = self._apart(params)
        for param in params:
            if not isinstance(param, Tensor):
                raise DTypeError(
                    "parameters must be tensors, as model.parameters() gives them",
                    operator=name,
                    got=type(param).__name__,
                )
            if not param.is_leaf:
                raise ArgumentError(
                    "a parameter must be a leaf, not the result of an operator",
                    operator=name,
                    got=f"shape {tuple(param.shape)}",
                )
        if len(set(params)) != len(params):
            warnings.warn(f"[{name}] a parameter occurs more than once in its group", stacklevel=3)
        taken = set(chain.from_iterable(group["params"] for group in self.param_groups))
        if taken.intersection(params):
            raise ArgumentError("a parameter occurs in more than one group", operator=name)
        options = {key: value for key, value in param_group.items() if key != "params"}
        group = {"params": params, **({} if names is None else {"param_names": names}), **options}
        for key, value in self.defaults.items():
            group.setdefault(key, copy.deepcopy(value))
        self._check_options(group)
        self.param_groups.append(group)

    def _apart(self, params: list[Any]) -> tuple[list[Any], list[str] | None]:
        """Parameters and their names, or None if they have none."""
        pairs = [
            isinstance(param, tuple) and len(param) == 2 and isinstance(param[0], str)
            for param in params
        ]
        named = any(pairs)
        groups = [group for group in self.param_groups if group["params"]]
        others = {"param_names" in group for group in groups}
        if params and (named != all(pairs) or others - {named}):
            raise ArgumentError(
                "either all parameters have names or none has", operator=type(self).__name__
            )
        if not named:
            return params, None
        return [param for _, param in params], [name for name, _ in params]

    def _check_options(self, group: dict[str, Any]) -> None:
        """Refuse options outside their domain, in the defaults and in every group."""

    def _require(self, holds: bool, rule: str, got: Any) -> None:
        if not holds:
            raise ArgumentError(rule, operator=type(self).__name__, got=str(got))

    def _require_number(self, group: dict[str, Any], *names: str) -> None:
        for name in names:
            value = group[name]
            if not isinstance(value, Real):
                raise DTypeError(
                    f"{name} must be a number", operator=type(self).__name__, got=repr(value)
                )
            self._require(float(value) >= 0, f"{name} must not be negative", value)

    def _check_common(self, group: dict[str, Any]) -> None:
        """Check what every optimiser here has: lr, weight_decay, differentiable."""
        if isinstance(group["lr"], Tensor):
            raise UnsupportedError(
                "lr must be a number; pass lr.item()", operator=type(self).__name__
            )
        if group.get("differentiable"):
            raise UnsupportedError(
                "differentiable=True is not supported; write the update with operators",
                operator=type(self).__name__,
            )
        both = bool(group.get("foreach") and group.get("fused"))
        self._require(not both, "foreach and fused exclude each other", "both")
        self._require_number(group, "lr", *(["weight_decay"] if "weight_decay" in group else []))

    def _check_betas(self, group: dict[str, Any]) -> None:
        betas = group["betas"]
        self._require(
            isinstance(betas, tuple | list)
            and len(betas) == 2
            and all(isinstance(beta, Real) and 0 <= float(beta) < 1 for beta in betas),
            "betas must be two numbers in [0, 1)",
            betas,
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for group in self.param_groups:
            training.clear_grads(group["params"], set_to_none)

    @with_step_hooks
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return what `closure` returns, if given.

        `closure` recomputes the loss and its gradients first.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            stepped = [(param, param.grad) for param in group["params"]]
            params = [param for param, grad in stepped if grad is not None]
            grads = [grad for _, grad in stepped if grad is not None]
            if params and capture.capturing():
                self._capture(group, params, grads)
            elif params:
                self._update(group, params, grads)
        self._steps_taken += 1
        return loss

    def _capture(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Put the step into the graph that is being captured.

        Nothing is stepped now. Before every replay `_update` runs once more without its kernel: it
        counts the steps, and brings the learning rate and what else the group says by then.
        """
        name = type(self).__name__
        if not self._capturable:
            raise UnsupportedError(
                "only SGD, Adam and AdamW steps can be captured in a graph; call step() after it",
                operator=name,
            )
        counts = [self.state[param]["step"] for param in params if "step" in self.state[param]]
        before = [float(count.array) for count in counts]
        fresh = [param for param in params if not self.state[param]]
        self._update(group, params, grads)
        for count, value in zip(counts, before, strict=True):
            count.array[...] = value
        started = [param for param in fresh if self.state[param]]
        for param in started:
            del self.state[param]
        if started:
            raise MinidlError(
                "the first step makes the state; take it before the graph is captured",
                operator=name,
            )
        # held, so that the graph's addresses stay theirs
        held = [(param, self._arrays(param)) for param in params]

        def again() -> None:
            for param, arrays in held:
                now = self._arrays(param)
                if len(now) != len(arrays) or any(
                    x is not y for x, y in zip(now, arrays, strict=True)
                ):
                    rule = "parameters or state were replaced since the graph was captured"
                    raise MinidlError(f"{rule}; capture it again", operator=name)
            self._update(group, params, grads)

        current: Any = capture.recording()
        current.at_replay(again)

    def _arrays(self, param: Tensor) -> list[Any]:
        """What a step of `param` writes."""
        state = self.state[param].values()
        return [param.array, *(x.array for x in state if type(x) is Tensor)]

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """Step `params`, whose gradients are `grads`, by the options of `group`."""
        raise NotImplementedError(f"[{type(self).__name__}] an optimiser defines _update or step")

    def _adopt(self, state: dict[str, Any]) -> None:
        """Put one parameter's loaded state into the form that `_update` expects, or refuse it."""

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {index: ...}, "param_groups": [...]}, parameters being their index.

        The tensors share storage with the optimiser's.
        """
        for hook in self._state_dict_pre.values():
            hook(self)
        index = {}
        for group in self.param_groups:
            for param in group["params"]:
                index.setdefault(param, len(index))
        groups = []
        for group in self.param_groups:
            options = {key: value for key, value in group.items() if key != "params"}
            groups.append({**options, "params": [index[param] for param in group["params"]]})
        packed = {
            "state": {index[param]: dict(state) for param, state in self.state.items()},
            "param_groups": groups,
        }
        for hook in self._state_dict_post.values():
            result = hook(self, packed)
            packed = packed if result is None else result
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take copies of the state and options that `state_dict` returned.

        Parameters are matched by position; NumPy arrays stand for tensors. Raises DTypeError if
        it is no such dictionary, ArgumentError (a ValueError) if the groups differ in number or
        size or the state is another optimiser's, MinidlError if a state tensor has another shape
        than its parameter. Then nothing has changed.
        """
        state_dict = dict(state_dict) if isinstance(state_dict, Mapping) else state_dict
        for hook in self._load_state_dict_pre.values():
            result = hook(self, state_dict)
            state_dict = state_dict if result is None else result
        if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
            raise DTypeError(
                'state_dict must be a dictionary with "state" and "param_groups"',
                operator="load_state_dict",
                got=type(state_dict).__name__,
            )
        saved_groups = copy.deepcopy(state_dict["param_groups"])
        sizes = [len(group["params"]) for group in self.param_groups]
        saved_sizes = [len(group["params"]) for group in saved_groups]
        if sizes != saved_sizes:
            raise ArgumentError(
                f"the groups must hold {sizes} parameters",
                operator="load_state_dict",
                got=str(saved_sizes),
            )
        param_of = {
            saved: param
            for saved_group, group in zip(saved_groups, self.param_groups, strict=True)
            for saved, param in zip(saved_group["params"], group["params"], strict=True)
        }
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for saved, values in state_dict["state"].items():
            if saved not in param_of:
                raise ArgumentError(
                    "state of a parameter that is in no group",
                    operator="load_state_dict",
                    got=repr(saved),
                )
            param = param_of[saved]
            state[param] = {
                key: _owned(key, value, param, key in self._unlike) for key, value in values.items()
            }
            self._adopt(state[param])
        for saved_group, group in zip(saved_groups, self.param_groups, strict=True):
            saved_group["params"] = group["params"]
            if "param_names" in group:
                saved_group.setdefault("param_names", group["param_names"])
            for key, value in self.defaults.items():
                saved_group.setdefault(key, copy.deepcopy(value))
        self.state, self.param_groups = state, saved_groups
        for hook in self._load_state_dict_post.values():
            hook(self)

    def __repr__(self) -> str:
        """List the options of every group."""
        groups = []
        for number, group in enumerate(self.param_groups):
            lines = [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
            groups.append("\n".join([f"Parameter Group {number}", *lines]))
        body = "\n\n".join(groups)
        return f"{type(self).__name__} (\n{body}\n)"


def _owned(key: str, value: Any, param: Tensor, unlike: bool) -> Any:
    """Copy one value of loaded state; tensors take the dtype and device of their parameter."""
    if isinstance(value, np.ndarray):
        value = ops.from_numpy(value)
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if key == "step":
        return value.detach().clone()
    if not unlike and value.shape != param.shape:
        raise MinidlError(
            f"state '{key}' must have the parameter's shape {tuple(param.shape)}",
            operator="load_state_dict",
            got=str(tuple(value.shape)),
        )
    dtype = param.dtype if value.is_floating_point() else None
    return value.detach().to(device=param.device, dtype=dtype).clone()
