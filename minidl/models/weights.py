"""A module's weights as a safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import minidl.ops as ops
from minidl import nn
from minidl.errors import ArgumentError

_ALIASES = "aliases"


def weights_bytes(module: nn.Module) -> bytes:
    """Return the content of a safetensors file with the module's `state_dict`.

    A parameter that has several names is stored once; the other names go into the metadata.
    """
    from safetensors.numpy import save

    # The values of state_dict are fresh tensors; which names share one, the module itself knows.
    owners = dict(module.named_buffers(remove_duplicate=False))
    owners |= dict(module.named_parameters(remove_duplicate=False))
    arrays: dict[str, np.ndarray] = {}
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in module.state_dict().items():
        stored = first.setdefault(id(owners[name]), name)
        if stored != name:
            aliases[name] = stored
            continue
        # safetensors 0.8.0 writes strided arrays wrongly (huggingface/safetensors#825).
        arrays[name] = np.asarray(tensor.detach().numpy(), order="C")
    return save(arrays, metadata={_ALIASES: json.dumps(aliases)})


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load what `weights_bytes` wrote into a module of the same shape.

    Raises ArgumentError for a file that is not in safetensors format or is damaged, and what
    `load_state_dict` raises for names or shapes that do not fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            state = {name: ops.tensor(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArgumentError(f"{path} is not a safetensors file: {error}") from error
    try:
        aliases = json.loads(metadata.get(_ALIASES, "{}"))
        state |= {name: state[stored] for name, stored in aliases.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ArgumentError(f"{path}: '{_ALIASES}' must map names to stored ones") from error
    module.load_state_dict(state)
