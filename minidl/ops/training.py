"""Updates of many tensors in one kernel call: optimiser steps and the norm of gradients.

Nothing here is recorded and nothing has a gradient. Every function takes lists of tensors that
belong together by position, splits them by the table that serves their device, and tells the
storages that they were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from minidl.backends import is_writable, kernels_for, local
from minidl.errors import MinidlError
from minidl.tensor import Tensor

Tensors = Sequence[Tensor]
MaybeTensors = Sequence[Tensor | None]


def sgd_step(
    params: Tensors,
    grads: Tensors,
    momenta: MaybeTensors,
    first: Sequence[bool],
    **options: Any,
) -> None:
    """Step `params` in place by SGD; `first` marks the momenta that have no value yet.

    The options are those of the kernel entry: lr, momentum, dampening, weight_decay, nesterov,
    maximize.
    """
    _check_writable("sgd_step", params)
    for k, at in _by_table(params):
        _run(
            k.sgd_step,
            *(_arrays(tensors, at) for tensors in (params, grads, momenta)),
            [first[i] for i in at],
            **options,
        )
    _written(params, momenta)


def adam_step(
    params: Tensors,
    grads: Tensors,
    exp_avgs: Tensors,
    exp_avg_sqs: Tensors,
    max_exp_avg_sqs: MaybeTensors,
    steps: Tensors,
    **options: Any,
) -> None:
    """Step `params` in place by Adam; `steps` are scalars and are counted up here.

    The options are those of the kernel entry: lr, beta1, beta2, eps, weight_decay, amsgrad,
    maximize, decoupled.
    """
    _check_writable("adam_step", params)
    counts = []
    for step in steps:
        count = int(kernels_for(step.array).host(step.array)) + 1
        step.array[...] = count  # at once: a parameter that is given twice steps twice
        counts.append(count)
    for k, at in _by_table(params):
        lists = (params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)
        _run(
            k.adam_step,
            *(_arrays(tensors, at) for tensors in lists),
            [counts[i] for i in at],
            **options,
        )
    _written(params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps)


def grad_norm(grads: Tensors, norm_type: float) -> Any:
    """Return the norm of the norms of all gradients, accumulated in float64.

    A float; for gradients on a GPU, a 0-d array there if its table gives one: nothing waits for it.
    """
    norms = [_run(k.grad_norm, _arrays(grads, at), norm_type) for k, at in _by_table(grads)]
    if len(norms) == 1:
        return norms[0]
    norms = [n if isinstance(n, float) else float(kernels_for(n).host(n)) for n in norms]
    together = np.array(norms, np.float64)
    k: Any = kernels_for(together)
    return _run(k.grad_norm, [together], norm_type)


def grad_scale(grads: Tensors, factor: Any) -> None:
    """Multiply all gradients by `factor`, a number or a 0-d array of their GPU, in place."""
    _check_writable("grad_scale", grads)
    for k, at in _by_table(grads):
        _run(k.grad_scale, _arrays(grads, at), factor)
    _written(grads)


def clear_grads(params: Iterable[Tensor], set_to_none: bool) -> None:
    """Drop the gradients of `params`, or keep the buffers and fill them with zeros."""
    for param in params:
        grad = param.grad
        if set_to_none or grad is None:
            param.grad = None
        else:
            if grad.node is not None:
                grad.detach_()
            grad.array[...] = 0
            _written([grad])


def _by_table(tensors: Tensors) -> Iterable[tuple[Any, Any]]:
    """Each kernel table, and the positions of the tensors that it serves."""
    if len({type(tensor.array) for tensor in tensors}) == 1:
        return [(kernels_for(tensors[0].array), range(len(tensors)))]
    found: dict[int, tuple[Any, list[int]]] = {}
    for i, tensor in enumerate(tensors):
        k = kernels_for(tensor.array)
        found.setdefault(id(k), (k, []))[1].append(i)
    return found.values()


def _arrays(tensors: MaybeTensors, at: Sequence[int]) -> list[Any]:
    return [None if (tensor := tensors[i]) is None else tensor.array for i in at]


def _run(kernel: Callable[..., Any], *args: Any, **options: Any) -> Any:
    # The thread's context, in which infinities and NaNs raise no NumPy warnings.
    return local.state.run(kernel, *args, **options)


def _check_writable(name: str, tensors: Tensors) -> None:
    for tensor in tensors:
        if not is_writable(tensor.array):
            raise MinidlError(
                "a tensor is read-only; .clone() it before it becomes a parameter",
                operator=name,
                got=f"shape {tensor.shape}",
            )


def _written(*lists: MaybeTensors) -> None:
    for tensors in lists:
        for tensor in tensors:
            if tensor is not None:
                tensor.storage.version += 1
