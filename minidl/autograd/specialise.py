"""Source of the two functions behind an operator: what users call, and its gradient call.

Only text is made here; `op.py` compiles it. The raw array of an argument `x` is `x_`, every other
local starts with an underscore, so no argument of an operator can collide with them. For
`mul(input, other)` the results read

    def specialised(input, other):
        try:
            if type(input) is Tensor and type(other) is Tensor:
                input_ = input.array
                other_ = other.array
                _d = input_.dtype
                if other_.dtype is _d and (_d is FLOAT32 or _d is FLOAT64 or ...):
                    _finish = None
                else:
                    input_, other_, _finish = PREPARE(OP, input, other)
            elif ...                                (one Python scalar; anything else)
        except DIVERTED as _d:                      (an argument of another class takes over)
            return _d.args[0](THIS, (input, other, ), {})
        _s = LOCAL.state
        if type(input_) is NDARRAY and (type(other_) is NDARRAY or type(other) is not Tensor):
            _k = _s.cpu
        else:                                       (arrays of a GPU)
            input_, other_, _k = PLACED(OP, (input, other, ), (input_, other_, ))
        try:
            _out = _s.enter(FORWARD, _k, input_, other_)
        except Exception as _error:
            if not ENTERED(_error): raise EXPLAIN(OP, _error, input, other)
            _out = FORWARD(_k, input_, other_)
        ...                                         (wrap)
        _r = _s.recording
        if _r:
            _e_input = ...                          (the edge to what made it, or None)
            _e_other = ...
            if _e_input is not None or _e_other is not None:
                ...                                 (make the node)
        return _t

    def backward(node, g, create_graph):
        input_, other_, = node.saved
        _e = node.edges
        _kept = REBUILT if create_graph else LENT
        _result = GRADIENT(g, _kept(input_, _e[0]), _kept(other_, _e[1]), ...)
        return _result
"""

from __future__ import annotations

from typing import Any


def source_of(op: Any) -> str:
    """The specialised function of `op` as Python source."""
    lines = [*_diverting(op, _unwrap(op)), *_run(op), *_wrap(op)]
    if op.inputs and not op.nondiff:
        lines += _record(op)
    lines.append("return " + ", ".join(_locals(op)[1]))
    return _function(f"specialised({_parameters(op)})", lines)


def backward_source_of(op: Any) -> str:
    """The gradient call of `op`: check versions, make tensors of what was saved, call."""
    lines = [
        "_saved = node.saved",
        "if type(_saved) is not tuple: _saved = UNFREED(OP.name, node)",
    ]
    if any(_guard(op, name) for name in op.saves):
        lines += [
            "_guards = iter(node.guards)",
            "for _stored in _guards:",
            "    if _stored.version != next(_guards): CHECK(OP.name, node.guards)",
        ]
    if op.composite is not None:
        lines.append("if create_graph: return THROUGH(OP, node, g)")
    if op.saves:
        lines.append(f"{', '.join(name + '_' for name in op.saves)}, = _saved")
    args = ", ".join(["g", *(_restored(op, name) for name in op.names)])
    if "_kept" in args:
        lines.append("_kept = REBUILT if create_graph else LENT")
    lines += [
        "_e = node.edges",
        f"_result = GRADIENT({args})",
        "if type(_result) is not tuple:",
        f"    _result = {'tuple(_result)' if op.sequence else '(_result,)'}",
        "if len(_result) != len(_e): MISCOUNTED(OP, _result, node)",
        "return _result",
    ]
    return _function("backward(node, g, create_graph)", lines)


def _function(head: str, lines: list[str]) -> str:
    return "\n".join([f"def {head}:", *_indent(lines)]) + "\n"


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def _tuple(parts: list[str]) -> str:
    return "(" + "".join(part + ", " for part in parts) + ")"


def _parameters(op: Any) -> str:
    parts = [
        p.name if p.default is p.empty else f"{p.name}=DEFAULT_{p.name}" for p in op.parameters
    ]
    keyword = [i for i, p in enumerate(op.parameters) if p.kind is p.KEYWORD_ONLY]
    if keyword:
        parts.insert(keyword[0], "*")
    return ", ".join(parts)


# ---------------------------------------------------------------- forward


def _diverting(op: Any, lines: list[str]) -> list[str]:
    """The lines, and what is called instead where an argument is not a Tensor but acts as one."""
    keyword = [p.name for p in op.parameters if p.kind is p.KEYWORD_ONLY]
    args = _tuple([p.name for p in op.parameters if p.name not in keyword])
    kwargs = "{" + ", ".join(f"{name!r}: {name}" for name in keyword) + "}"
    call = f"    return _d.args[0](THIS, {args}, {kwargs})"
    return ["try:", *_indent(lines), "except DIVERTED as _d:", call]


def _unwrap(op: Any) -> list[str]:
    """Raw arrays `x_` of the inputs; `_finish` is the dtype to round the result to, or None."""
    lines = [
        f"{n}_ = {n}.array if type({n}) is Tensor else OPERAND(OP, {n!r}, {n})"
        for n, kind in op.kinds.items()
        if kind == "index"
    ]
    inputs = op.inputs
    if not inputs:
        return [*lines, "_finish = None"]
    if op.sequence:
        (name,) = inputs
        return [
            *lines,
            f"{name} = SEQUENCE(OP, {name!r}, {name})",
            f"*{name}_, _finish = PREPARE(OP, *{name})",
        ]
    optional = {n for n in inputs if op.kinds[n] == "optional"}
    tensors = [
        f"({n} is None or type({n}) is Tensor)" if n in optional else f"type({n}) is Tensor"
        for n in inputs
    ]
    lines.append(f"if {' and '.join(tensors)}:")
    lines += [
        f"    {n}_ = {n}.array" + (f" if {n} is not None else None" if n in optional else "")
        for n in inputs
    ]
    check = [f"{n} = OPERAND(OP, {n!r}, {n})" for n in inputs]
    if op.promote is None:
        return [*lines, "    _finish = None", "else:", *_indent(check)]
    first, *others = inputs
    same = [
        f"({n}_ is None or {n}_.dtype is _d)" if n in optional else f"{n}_.dtype is _d"
        for n in others
    ]
    prepare = f"{', '.join(n + '_' for n in inputs)}, _finish = PREPARE(OP, {', '.join(inputs)})"
    half = f"or _d is BFLOAT16 and {op.name!r} in HALF({first}.array)"
    lines += [
        f"    _d = {first}_.dtype",
        f"    if {' and '.join([*same, f'(_d is FLOAT32 or _d is FLOAT64 {half})'])}:",
        "        _finish = None",
        "    else:",
        f"        {prepare}",
    ]
    if op.scalars and len(inputs) == 2 and not optional:
        x, y = inputs
        lines += [
            f"elif type({x}) is Tensor and (type({y}) is float or type({y}) is int) and "
            f"((_d := {x}.array.dtype) is FLOAT32 or _d is FLOAT64 {half}):",
            f"    {x}_ = {x}.array",
            f"    {y}_ = {y}",
            "    _finish = None",
        ]
    return [*lines, "else:", *_indent([*check, prepare])]


def _run(op: Any) -> list[str]:
    values = []
    for p in op.parameters:
        value = p.name if op.kinds[p.name] == "attribute" else p.name + "_"
        values.append(f"{p.name}={value}" if p.kind is p.KEYWORD_ONLY else value)
    shown = [n for n, kind in op.kinds.items() if kind != "attribute"]
    lines = [
        "_s = LOCAL.state",
        *_place(op, shown),
        "try:",
        f"    _out = _s.enter(FORWARD, _k, {', '.join(values)})",
        "except Exception as _error:",
        f"    if not ENTERED(_error): raise EXPLAIN(OP, _error, {', '.join(shown)})",
        f"    _out = FORWARD(_k, {', '.join(values)})",
    ]
    if op.promote is not None:
        finish = f"ROUNDED(_out, _finish, {len(op.outputs)})"
        lines.append(f"if _finish is not None: _out = {finish}")
    return lines


def _place(op: Any, shown: list[str]) -> list[str]:
    """The table `_k`: that of the CPU without a look at it, where all arrays are NumPy's."""
    if not shown:
        return [f"_k = {'ON_DEVICE(device)' if 'device' in op.kinds else '_s.cpu'}"]
    if op.sequence:
        (name,) = op.inputs
        return [
            "_k = _s.cpu",
            f"if not all([type(_x) is NDARRAY for _x in {name}_]):",
            f"    *{name}_, _k = PLACED(OP, {name}, {name}_)",
        ]
    tests = [
        f"(type({n}_) is NDARRAY or type({n}) is not Tensor)"
        if op.kinds[n] == "index" or n in op.loose
        else f"type({n}_) is NDARRAY"
        for n in shown
    ]
    names = [n + "_" for n in shown]
    return [
        f"if {' and '.join(tests)}:",
        "    _k = _s.cpu",
        "else:",
        f"    {', '.join(names)}, _k = PLACED(OP, {_tuple(shown)}, {_tuple(names)})",
    ]


def _locals(op: Any) -> tuple[list[str], list[str]]:
    """Local names of the raw outputs and of their tensors."""
    if len(op.outputs) == 1:
        return ["_out"], ["_t"]
    indices = range(len(op.outputs))
    return [f"_out{i}" for i in indices], [f"_t{i}" for i in indices]


def _wrap(op: Any) -> list[str]:
    outs, tensors = _locals(op)
    lines = []
    if len(outs) > 1 or op.residuals:
        residuals = ["_r_" + name for name in op.residuals]
        lines.append(f"{', '.join([*outs, *residuals])} = _out")
    for out, t in zip(outs, tensors, strict=True):
        lines += [
            f"if type({out}) is not NDARRAY and type({out}) not in ARRAY_TYPES:",
            f"    {out} = _k.asarray({out})",
            f"{t} = NEW(Tensor)",
            f"{t}.array = {out}",
            f"{t}.storage = {op.inputs[0] + '.storage' if op.view else 'STORAGE()'}",
            f"{t}.tracked = {t}.is_parameter = False",
            f"{t}.node = {t}.base = {t}.hooks = {t}._grad = None",
        ]
    return lines


# ---------------------------------------------------------------- recording


def _record(op: Any) -> list[str]:
    if op.sequence:
        (name,) = op.inputs
        lines = [f"_edges = tuple([EDGE(_x) for _x in {name}])"]
        tracked, edges = "any([_x is not None for _x in _edges])", "_edges"
    else:
        lines = []
        for n in op.inputs:
            test = f"({n}.tracked or {n}.base is not None)"
            test = f"type({n}) is Tensor and {test}" if n in op.loose else test
            lines.append(f"_e_{n} = EDGE({n}) if {test} else None")
        tracked = " or ".join(f"_e_{n} is not None" for n in op.inputs)
        edges = _tuple([f"_e_{n}" for n in op.inputs])
    lines += [f"if {tracked}:", *_indent(_node(op, edges))]
    lines = ["_r = _s.recording", "if _r:", *_indent(lines)]
    if op.view:
        attributes = _tuple([p.name for p in op.parameters[1:]])
        lines.append(f"_t.base = VIEW({op.inputs[0]}, THIS, {attributes}, _r is not False)")
    return lines


def _node(op: Any, edges: str) -> list[str]:
    outs, tensors = _locals(op)
    lines = [
        "_n = NEW(Node)",
        "_n.op = OP",
        f"_n.edges = {edges}",
        f"_n.saved = {_tuple([_value(op, name) for name in op.saves])}",
        f"_n.guards = {_tuple([g for name in op.saves if (g := _guard(op, name))])}",
        f"_n.call = {_call(op) if op.composite is not None else None}",
        "_n.hooks = _n.where = None",
    ]
    if len(outs) == 1:
        lines += ["_n.shape = _out.shape", "_n.dtype = _out.dtype"]
        lines += ["_t.node = _n", "_t.tracked = True"]
    else:
        lines.append(f"_n.shape = {_tuple([out + '.shape' for out in outs])}")
        lines.append(f"_n.dtype = {_tuple([out + '.dtype' for out in outs])}")
        for i, (out, t) in enumerate(zip(outs, tensors, strict=True)):
            lines.append(f"if {out}.dtype.kind not in 'iub':")
            lines.append(f"    {t}.node, {t}.tracked = (_n, {i}), True")
    return [*lines, "if _r is not True: _r(_n)"]


def _value(op: Any, name: str) -> str:
    """Expression for what a node keeps under `name`: originals, not promoted copies."""
    if name in op.inputs:
        if op.sequence:
            return f"tuple([_x.array for _x in {name}])"
        loose = name in op.loose
        value = (
            f"({name}.array if type({name}) is Tensor else {name})" if loose else f"{name}.array"
        )
        needed = op.needed_by.get(name)
        return f"{value} if _e_{needed} is not None else None" if needed else value
    if name in op.outputs:
        return _locals(op)[0][op.outputs.index(name)]
    if name in op.residuals:
        return "_r_" + name
    if op.kinds.get(name) == "index":
        return name + "_"
    base = name.removesuffix("_shape")
    if name not in op.kinds and base in op.inputs:
        if op.sequence:
            return f"[_x.shape for _x in {base}_]"
        return f"{base}_.shape" + (
            f" if type({base}) is Tensor else ()" if base in op.loose else ""
        )
    return f"{name} if type({name}) is not list else tuple({name})"  # the caller may change it


def _guard(op: Any, name: str) -> str:
    """Expression for the storage and version of what is kept under `name`; empty if it has none."""
    when = []
    if name in op.inputs:
        if op.sequence:
            return f"*[_g for _x in {name} for _g in (_x.storage, _x.storage.version)]"
        if name in op.loose:
            when.append(f"type({name}) is Tensor")
        if name in op.needed_by:
            when.append(f"_e_{op.needed_by[name]} is not None")
    elif op.kinds.get(name) == "index":
        when.append(f"{name} is not None")
    elif name in op.outputs:
        name = _locals(op)[1][op.outputs.index(name)]
    else:
        return ""
    guard = f"{name}.storage, {name}.storage.version"
    return f"*(({guard}) if {' and '.join(when)} else ())" if when else guard


def _restored(op: Any, name: str) -> str:
    """Expression for what the gradient gets under `name`, from the value `name_` that was kept."""
    if name == "needs":
        if op.sequence:
            return "tuple([_x is not None for _x in _e])"
        return _tuple([f"_e[{i}] is not None" for i in range(len(op.inputs))])
    value, edge = name + "_", None
    if name in op.inputs:
        if op.sequence:
            return f"[_kept(_x, _y) for _x, _y in zip({value}, _e)]"
        edge = f"_e[{op.inputs.index(name)}]"
    elif name in op.outputs:
        edge = "node" if len(op.outputs) == 1 else f"(node, {op.outputs.index(name)})"
    elif name not in op.residuals and op.kinds.get(name) != "index":
        return value
    is_array = f"type({value}) is NDARRAY or type({value}) in ARRAY_TYPES"
    return f"_kept({value}, {edge}) if {is_array} else {value}"


def _call(op: Any) -> str:
    """All arguments of a fused operator; inputs as (array, storage, version)."""
    parts = []
    for name, kind in op.kinds.items():
        if kind in ("array", "optional"):
            kept = f"({name}.array, {name}.storage, {name}.storage.version)"
            parts.append(f"None if {name} is None else {kept}" if kind == "optional" else kept)
        else:
            parts.append(name)
    return _tuple(parts)
