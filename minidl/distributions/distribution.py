"""The base class of distributions: shapes, validation of arguments, expansion."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from minidl.autograd.modes import no_grad
from minidl.distributions import constraints
from minidl.distributions.utils import lazy_property
from minidl.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from minidl.ops.creation import sizes
from minidl.ops.transcendental import exp, sqrt
from minidl.ops.views import broadcast_shapes
from minidl.tensor import Tensor

__all__ = ["Distribution"]


class Distribution:
    """A distribution over tensors of shape batch_shape + event_shape.

    A subclass says `arg_constraints` (parameter -> constraint), `support`, `has_rsample`, and
    defines what it has of `_draw(shape)`, `_log_prob`, `_cdf`, `_icdf`, `_entropy`, `_mean`,
    `_mode`, `_variance` and `_enumerate`; the public methods check their arguments and call these.

    batch_shape: shapes of independent distributions, not identical ones; event_shape: shape of one
    draw; validate_args: whether parameters and values are checked (default: yes).
    Raises ArgumentError for a parameter outside its constraint.
    """

    has_rsample = False
    has_enumerate_support = False
    arg_constraints: ClassVar[Any] = {}
    support: ClassVar[Any] = constraints.dependent
    _validate_args = True

    def __init__(
        self,
        batch_shape: tuple[int, ...] = (),
        event_shape: tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = tuple(batch_shape), tuple(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            lazy = isinstance(getattr(type(self), name, None), lazy_property)
            if constraints.is_dependent(constraint) or (lazy and name not in self.__dict__):
                continue
            value = getattr(self, name)
            if not bool(constraint.check(value).all()):
                raise ArgumentError(
                    f"parameter {name} must satisfy the constraint {constraint!r}",
                    operator=type(self).__name__, got=str(value.detach()),
                )  # fmt: skip

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check parameters and values unless `validate_args` says so."""
        if value not in (True, False):
            raise ArgumentError("value must be a bool", got=repr(value))
        Distribution._validate_args = value

    # ------------------------------------------------------------ shapes

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the parameters' batch."""
        return self._batch_shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one draw."""
        return self._event_shape

    def _extended_shape(self, sample_shape: Any = ()) -> tuple[int, ...]:
        shape = sizes((sample_shape,), type(self).__name__)
        return (*shape, *self._batch_shape, *self._event_shape)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Distribution:
        """The same distribution over a larger batch, with parameters as views."""
        return self._expanded(sizes((batch_shape,), type(self).__name__))

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._batch_shape = shape
        for name in self._parameters():
            value = self.__dict__[name]
            own = value.shape[len(self._batch_shape) :]
            new.__dict__[name] = value.expand(*shape, *own)
        return new

    def _parameters(self) -> list[str]:
        """Names of the attributes that `expand` expands."""
        return [name for name in self.arg_constraints if name in self.__dict__]

    # ------------------------------------------------------------ draws

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape sample_shape + batch_shape + event_shape with gradients by parameters.

        Raises UnsupportedError where draws have no gradient.
        """
        if not self.has_rsample:
            self._lacks("rsample", "; use sample and the score function, log_prob(x)")
        return self._draw(self._extended_shape(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape sample_shape + batch_shape + event_shape, without gradients."""
        with no_grad():
            return self._draw(self._extended_shape(sample_shape)).detach()

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`."""
        return self.sample((n,))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        self._lacks("sample")

    # ------------------------------------------------------------ functions of values

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at `value`: (..., *batch_shape)."""
        self._check(value)
        return self._log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of draws up to `value`."""
        self._check(value)
        return self._cdf(value)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`: quantiles."""
        return self._icdf(value)

    def entropy(self) -> Tensor:
        """The entropy in nats: (*batch_shape)."""
        return self._entropy()

    def perplexity(self) -> Tensor:
        """exp(entropy)."""
        return exp(self.entropy())

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a finite support along a new first axis.

        expand: whether the batch's axes have their full sizes instead of 1.
        """
        if not self.has_enumerate_support:
            self._lacks("enumerate_support")
        return self._enumerate(expand)

    def _spread(self, values: Tensor, expand: bool) -> Tensor:
        """Values (n, *event_shape) with axes for the batch behind the first."""
        own = values.shape[1:]
        values = values.reshape(values.shape[0], *(1 for _ in self._batch_shape), *own)
        return values.expand(-1, *self._batch_shape, *own) if expand else values

    def _log_prob(self, value: Tensor) -> Tensor:
        self._lacks("log_prob")

    def _cdf(self, value: Tensor) -> Tensor:
        self._lacks("cdf")

    def _icdf(self, value: Tensor) -> Tensor:
        self._lacks("icdf")

    def _entropy(self) -> Tensor:
        self._lacks("entropy")

    def _enumerate(self, expand: bool) -> Tensor:
        self._lacks("enumerate_support")

    # ------------------------------------------------------------ moments

    @property
    def mean(self) -> Tensor:
        """The mean: batch_shape + event_shape."""
        return self._mean()

    @property
    def mode(self) -> Tensor:
        """The most probable value: batch_shape + event_shape."""
        return self._mode()

    @property
    def variance(self) -> Tensor:
        """The variance of every element: batch_shape + event_shape."""
        return self._variance()

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return sqrt(self.variance)

    def _mean(self) -> Tensor:
        self._lacks("mean")

    def _mode(self) -> Tensor:
        self._lacks("mode")

    def _variance(self) -> Tensor:
        self._lacks("variance")

    # ------------------------------------------------------------ checks

    def _lacks(self, what: str, instead: str = "") -> NoReturn:
        raise UnsupportedError(f"has no {what}{instead}", operator=type(self).__name__)

    def _check(self, value: Any) -> None:
        """Refuse a value of a wrong type or shape, or outside of the support."""
        name = type(self).__name__
        if type(value) is not Tensor:
            raise DTypeError("value must be a Tensor", operator=name, got=type(value).__name__)
        if not self._validate_args:
            return
        events = len(self._event_shape)
        batch = value.shape[: value.ndim - events]
        own = value.shape[value.ndim - events :]
        pairs = zip(own, self._event_shape, strict=True) if value.ndim >= events else [(0, 1)]
        if any(n not in (1, size) for n, size in pairs):
            raise ShapeError(f"value must end in the event's axes {self._event_shape}",
                             operator=name, got=str(value.shape))  # fmt: skip
        try:
            broadcast_shapes(batch, self._batch_shape)
        except (ShapeError, ValueError):
            raise ShapeError(f"value must broadcast with the batch {self._batch_shape}",
                             operator=name, got=str(value.shape)) from None  # fmt: skip
        try:
            support = self.support
        except UnsupportedError:
            return
        if constraints.is_dependent(support):
            return
        if not bool(support.check(value).all()):
            raise ArgumentError(f"value must lie in the support {support!r}", operator=name,
                                got=str(value.detach()))  # fmt: skip

    def __repr__(self) -> str:
        shown = [
            f"{name}: {value if value.numel() == 1 else value.shape}"
            for name in self._parameters()
            if type(value := self.__dict__[name]) is Tensor
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
