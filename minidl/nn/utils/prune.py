"""Pruning: weights set to zero by masks, which a hook applies before every forward.

A pruned tensor `name` is computed from the parameter `name_orig` and the buffer `name_mask`;
`remove` makes the zeros final. Imported by itself: `import minidl.nn.utils.prune as prune`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from minidl.nn.hooks import pre_hook_of
from minidl.nn.module import Module
from minidl.nn.utils.convert_parameters import parameters_to_vector
from minidl.tensor import Tensor

ModuleT = TypeVar("ModuleT", bound=Module)


class BasePruningMethod(ABC):
    """A rule that says which elements of a tensor go; subclasses define `compute_mask`.

    PRUNING_TYPE says how rules that follow each other combine: an "unstructured" one chooses
    among the elements that are left, a "structured" one among the slices of its axis `dim` that
    are left, a "global" one sees the whole tensor.
    """

    PRUNING_TYPE: str = ""
    _tensor_name: str = ""

    @property
    def name(self) -> str:
        """The tensor that is pruned."""
        return self._tensor_name

    def __call__(self, module: Module, inputs: Any) -> None:
        """Compute the pruned tensor that the forward after this uses."""
        setattr(module, self._tensor_name, self.apply_mask(module))

    @abstractmethod
    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask of `t`'s shape, 1 for what stays, where `default_mask` is 0 already."""

    def apply_mask(self, module: Module) -> Tensor:
        """The pruned tensor, original times mask; gradients reach what stays."""
        original = getattr(module, f"{self._tensor_name}_orig")
        mask = getattr(module, f"{self._tensor_name}_mask")
        return mask.to(dtype=original.dtype) * original

    @classmethod
    def apply(
        cls,
        module: Module,
        name: str,
        *args: Any,
        importance_scores: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Prune the tensor `name` of `module` by this rule, on top of those that it has already.

        importance_scores: a tensor of the same shape whose elements are judged instead of the
        tensor's. Returns the hook. Where the rule refuses, the module stays as it was.
        """
        method: BasePruningMethod = cls(*args, **kwargs)
        method._tensor_name = name
        tensor = getattr(module, name)
        found = pre_hook_of(module, BasePruningMethod, name)
        if found is None:
            tensor, default = module.get_parameter(name), ops.ones_like(tensor.detach())
        else:
            method = PruningContainer(*_rules(found[1]), method)
            default = getattr(module, f"{name}_mask").detach().clone()
        scores = _scores(importance_scores, tensor)
        with no_grad():
            mask = method.compute_mask(scores, default)
        if found is None:
            delattr(module, name)
            module.register_parameter(f"{name}_orig", tensor)
        else:
            del module._hook_tables().forward_pre[found[0]]
        module.register_buffer(f"{name}_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(
        self,
        t: Tensor,
        default_mask: Tensor | None = None,
        importance_scores: Tensor | None = None,
    ) -> Tensor:
        """Return `t` pruned by this rule, without any module."""
        scores = _scores(importance_scores, t)
        default = ops.ones_like(t.detach()) if default_mask is None else default_mask
        with no_grad():
            mask = self.compute_mask(scores, default)
        return t * mask

    def remove(self, module: Module) -> None:
        """Make the pruned values those of the parameter, which gets its name back."""
        name = self._tensor_name
        original = module.get_parameter(f"{name}_orig")
        original.data = self.apply_mask(module).detach()
        for attribute in (name, f"{name}_orig", f"{name}_mask"):
            delattr(module, attribute)
        module.register_parameter(name, original)


def _scores(importance_scores: Tensor | None, tensor: Tensor) -> Tensor:
    if importance_scores is None:
        return tensor.detach()
    if importance_scores.shape != tensor.shape:
        raise ShapeError(
            "importance_scores must have the tensor's shape",
            operator="prune",
            got=f"{importance_scores.shape}, {tensor.shape}",
        )
    return importance_scores.detach()


def _rules(method: BasePruningMethod) -> tuple[BasePruningMethod, ...]:
    return method._pruning_methods if isinstance(method, PruningContainer) else (method,)


class PruningContainer(BasePruningMethod):
    """Several rules for one tensor, which were applied one after the other."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if len(args) == 1 and not isinstance(args[0], BasePruningMethod):
            args = tuple(args[0])
        if args:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: Any) -> None:
        """Append a rule; TypeError for anything else, ValueError for one of another tensor."""
        if not isinstance(method, BasePruningMethod):
            raise DTypeError(
                "a rule must be a BasePruningMethod", operator="prune", got=type(method).__name__
            )
        if method._tensor_name != self._tensor_name:
            raise ArgumentError(
                f"the rules of one container prune one tensor, here '{self._tensor_name}'",
                operator="prune",
                got=f"'{method._tensor_name}'",
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, idx: Any) -> Any:
        return self._pruning_methods[idx]

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Apply the last rule to what `default_mask`, of those before it, has left."""
        method = self._pruning_methods[-1]
        mask = default_mask.to(dtype=t.dtype)
        if method.PRUNING_TYPE == "unstructured":
            left: Any = default_mask == 1
        elif method.PRUNING_TYPE == "structured":
            dim = method.dim % t.ndim  # type: ignore[attr-defined]
            others = [axis for axis in range(t.ndim) if axis != dim]
            left = (slice(None),) * dim + (default_mask.sum(others) != 0,)
        elif method.PRUNING_TYPE == "global":
            left = ...
        else:
            raise AttributeError(
                "[prune] PRUNING_TYPE must be 'unstructured', 'structured' or 'global', got "
                f"{method.PRUNING_TYPE!r}"
            )
        mask = mask.clone()
        mask[left] = method.compute_mask(t[left], default_mask[left]).to(dtype=mask.dtype)
        return mask


class Identity(BasePruningMethod):
    """Prunes nothing, but gives the tensor a mask."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """The mask that is there."""
        return default_mask


class _Amount(BasePruningMethod):
    """A rule that takes a number of elements or slices, or a share of them."""

    def __init__(self, amount: float) -> None:
        if not isinstance(amount, Real):
            raise DTypeError("amount must be a number", operator="prune", got=type(amount).__name__)
        if amount < 0 or (not isinstance(amount, Integral) and amount > 1):
            raise ArgumentError(
                "amount must be a share in [0, 1] or a count", operator="prune", got=str(amount)
            )
        self.amount = amount

    def count(self, size: int) -> int:
        """How many of `size` go; ValueError for a count that is larger."""
        if not isinstance(self.amount, Integral):
            return round(self.amount * size)
        if self.amount > size:
            raise ArgumentError(
                f"there are only {size} to prune", operator="prune", got=str(self.amount)
            )
        return int(self.amount)


class RandomUnstructured(_Amount):
    """Prunes elements at random."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Set as many elements of the mask to 0, drawn without replacement."""
        return _without_least(ops.rand_like(t), self.count(t.numel()), default_mask)


class L1Unstructured(_Amount):
    """Prunes the elements that are smallest in size."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Set the mask to 0 where `t` is smallest in absolute value."""
        return _without_least(t.abs(), self.count(t.numel()), default_mask)


def _without_least(scores: Tensor, count: int, default_mask: Tensor) -> Tensor:
    mask = default_mask.clone()
    if count:
        least = scores.reshape(-1).topk(count, largest=False)[1]
        flat = mask.reshape(-1)
        flat[least] = 0
        mask = flat.reshape(mask.shape)
    return mask


class _Structured(_Amount):
    """A rule that takes whole slices along the axis `dim`."""

    PRUNING_TYPE = "structured"

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    @abstractmethod
    def slice_scores(self, t: Tensor) -> Tensor:
        """One number per slice; the least go."""

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Set the mask to 0 in the slices of least score."""
        if t.ndim <= 1:
            raise ShapeError("slices need at least 2 axes", operator="prune", got=str(t.shape))
        if not -t.ndim <= self.dim < t.ndim:
            raise OutOfRangeError(
                f"dim must lie in [{-t.ndim}, {t.ndim})", operator="prune", got=str(self.dim)
            )
        size = t.shape[self.dim]
        kept = ops.ones(size, dtype=default_mask.dtype, device=t.device)
        if count := self.count(size):
            kept[self.slice_scores(t).topk(count, largest=False)[1]] = 0
        shape = [1] * t.ndim
        shape[self.dim] = size
        return default_mask * kept.reshape(shape)


class RandomStructured(_Structured):
    """Prunes slices along the axis `dim` at random."""

    def slice_scores(self, t: Tensor) -> Tensor:
        """Random numbers."""
        return ops.rand(t.shape[self.dim], device=t.device)


class LnStructured(_Structured):
    """Prunes the slices along the axis `dim` with the smallest norms of order `n`."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount, dim)
        self.n = n

    def slice_scores(self, t: Tensor) -> Tensor:
        """The norms of the slices."""
        others = [axis for axis in range(t.ndim) if axis != self.dim % t.ndim]
        return ops.norm(t, self.n, others)


class CustomFromMask(BasePruningMethod):
    """Prunes by a mask that is given."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Tensor, default_mask: Tensor) -> Tensor:
        """Both masks together."""
        if default_mask.shape != self.mask.shape:
            raise ShapeError(
                "the mask must have the tensor's shape",
                operator="prune",
                got=f"{self.mask.shape}, {default_mask.shape}",
            )
        return default_mask * self.mask.to(dtype=default_mask.dtype)


def identity(module: ModuleT, name: str) -> ModuleT:
    """Give the tensor `name` a mask of ones."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: ModuleT, name: str, amount: float) -> ModuleT:
    """Prune elements of the tensor `name` at random: a share `amount`, or a count (int)."""
    RandomUnstructured.apply(module, name, amount)
    return module


def l1_unstructured(
    module: ModuleT, name: str, amount: float, importance_scores: Tensor | None = None
) -> ModuleT:
    """Prune the elements of `name` that are smallest in size: a share, or a count (int)."""
    L1Unstructured.apply(module, name, amount, importance_scores=importance_scores)
    return module


def random_structured(module: ModuleT, name: str, amount: float, dim: int) -> ModuleT:
    """Prune slices of `name` along the axis `dim` at random: a share, or a count (int)."""
    RandomStructured.apply(module, name, amount, dim)
    return module


def ln_structured(
    module: ModuleT,
    name: str,
    amount: float,
    n: Any,
    dim: int,
    importance_scores: Tensor | None = None,
) -> ModuleT:
    """Prune the slices of `name` along `dim` with the smallest n-norms: a share, or a count."""
    LnStructured.apply(module, name, amount, n, dim, importance_scores=importance_scores)
    return module


def custom_from_mask(module: ModuleT, name: str, mask: Tensor) -> ModuleT:
    """Prune the tensor `name` where `mask`, of its shape, is 0."""
    CustomFromMask.apply(module, name, mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: Mapping[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune elements of many tensors as if they were one, by an unstructured rule.

    parameters: (module, name) pairs; importance_scores: for some of them, what is judged
    instead; kwargs: the rule's own, such as `amount` (a share of all elements, or a count).
    """
    pairs = list(parameters)
    scores = {} if importance_scores is None else importance_scores
    if not isinstance(scores, Mapping):
        raise DTypeError(
            "importance_scores must be a mapping from (module, name)",
            operator="global_unstructured",
            got=type(scores).__name__,
        )
    tensors = [getattr(module, name) for module, name in pairs]
    judged = [_scores(scores.get(pair), t) for pair, t in zip(pairs, tensors, strict=True)]
    masks = [
        getattr(module, f"{name}_mask", ops.ones_like(tensor.detach()))
        for (module, name), tensor in zip(pairs, tensors, strict=True)
    ]
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise DTypeError(
            "the rule must be an unstructured one",
            operator="global_unstructured",
            got=pruning_method.__name__,
        )
    with no_grad():
        container = PruningContainer(method)
        mask = container.compute_mask(parameters_to_vector(judged), parameters_to_vector(masks))
    parts = mask.split([tensor.numel() for tensor in tensors])
    for (module, name), tensor, part in zip(pairs, tensors, parts, strict=True):
        custom_from_mask(module, name, part.reshape(tensor.shape))


def remove(module: ModuleT, name: str) -> ModuleT:
    """Make the zeros of the tensor `name` final; ValueError where it is not pruned."""
    found = pre_hook_of(module, BasePruningMethod, name)
    if found is None:
        raise ArgumentError(
            f"the tensor '{name}' of {type(module).__name__} is not pruned", operator="prune"
        )
    key, method = found
    method.remove(module)
    del module._hook_tables().forward_pre[key]
    return module


def is_pruned(module: Module) -> bool:
    """Whether any tensor of the module, or of one below it, is pruned."""
    for part in module.modules():
        tables = part.__dict__.get("_hooks")
        hooks = () if tables is None else tables.forward_pre.values()
        if any(isinstance(hook.run, BasePruningMethod) for hook in hooks):
            return True
    return False


__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]
