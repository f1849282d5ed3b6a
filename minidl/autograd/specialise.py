"""Source of the function that users call for an operator: unwrap, run, wrap, record.

Only text is made here; `op.py` compiles it. Locals start with an underscore, so no argument of
an operator can collide with them. For `mul(input, other)` the result reads

    def specialised(input, other):
        if type(input) is Tensor and type(other) is Tensor:
            _input = input.array
            _other = other.array
            _d = _input.dtype
            if _other.dtype is _d and (_d is F32 or _d is F64):
                _finish = None
            else:
                _input, _other, _finish = PREPARE(OP, input, other)
        elif ...                                    (one Python scalar; anything else)
        _s = LOCAL.state
        try:
            _out = _s.enter(FORWARD, _s.cpu, _input, _other)
        except Exception as _error:
            if not ENTERED(_error): raise EXPLAIN(OP, _error, input, other)
            _out = FORWARD(_s.cpu, _input, _other)
        ...                                         (wrap, record)
"""

from __future__ import annotations

from typing import Any


def source_of(op: Any) -> str:
    """The specialised function of `op` as Python source."""
    lines = [f"def specialised({_parameters(op)}):"]
    lines += _indent(_unwrap(op))
    lines += _indent(_run(op))
    lines += _indent(_wrap(op))
    if not op.nondiff:
        lines += _indent(_record(op))
    lines += _indent(["return " + ", ".join(_results(op))])
    return "\n".join(lines) + "\n"


def backward_source_of(op: Any) -> str:
    """The gradient call of `op` without graph: check versions, wrap what was saved, call."""
    body = [
        "_saved = node.saved",
        "if type(_saved) is not tuple:",
        "    return SLOW(node, g, False)",
    ]
    if op.saves:
        body.append(f"{', '.join('_' + name for name in op.saves)}, = _saved")
    guards = _guards(op, _takes_scalars(op))
    if guards != "()":
        body.append("_v = node.guards")
        if "*" in guards or guards.startswith("tuple"):
            body.append("CHECK(OP.name, _v)")
        else:
            pairs = range(0, guards.count(","), 2)
            moved = " or ".join(f"_v[{i}].version != _v[{i + 1}]" for i in pairs)
            body.append(f"if {moved}: CHECK(OP.name, _v)")
    args = []
    for name, (how, _) in zip(op.saves, op.plan, strict=True):
        if how == 0:
            args.append("_" + name)
        elif op.sequence and name in op.inputs:
            args.append(f"[LENT(_x) for _x in _{name}]")
        else:
            args.append(f"LENT(_{name}) if type(_{name}) is NDARRAY else _{name}")
    if op.wants_needs:
        needs = "(" + "".join(f"_e[{i}] is not None, " for i in range(len(op.inputs))) + ")"
        body.append("_e = node.edges")
        args.insert(
            op.needs_position - 1, "tuple([_x is not None for _x in _e])" if op.sequence else needs
        )
    call = f"GRADIENT({', '.join(['g', *args])})"
    if op.sequence:
        body.append(f"_result = tuple({call})")
    elif len(op.inputs) == 1:
        body.append(f"_result = {call}")
        body.append("if type(_result) is not tuple: _result = (_result,)")
    else:
        body.append(f"_result = {call}")
    body += ["if len(_result) != len(node.edges): MISCOUNTED(OP, _result, node)", "return _result"]
    return "\n".join(["def backward(node, g):", *_indent(body)]) + "\n"


def _takes_scalars(op: Any) -> bool:
    return op.promote in ("same", "float") and len(op.inputs) > 1 and not op.sequence


def _indent(lines: list[str], by: int = 1) -> list[str]:
    return ["    " * by + line for line in lines]


def _parameters(op: Any) -> str:
    parts, star = [], False
    for p in op.parameters:
        if p.kind is p.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        parts.append(p.name if p.default is p.empty else f"{p.name}=DEFAULT_{p.name}")
    return ", ".join(parts)


def _unwrap(op: Any) -> list[str]:
    """Raw arrays `_x` of the inputs; `_finish` is the dtype to round the result to, or None."""
    lines = []
    for name, kind in op.kinds.items():
        if kind == "index":
            lines += [
                f"if type({name}) is Tensor:",
                f"    _{name} = {name}.array",
                "else:",
                f"    _{name} = {name} if {name} is None else REFUSE(OP, {name!r}, {name})",
            ]
    inputs = op.inputs
    if not inputs:
        return [*lines, "_finish = None"]
    if op.sequence:
        (name,) = inputs
        return [
            *lines,
            f"{name} = SEQUENCE(OP, {name!r}, {name})",
            f"*_{name}, _finish = PREPARE(OP, *{name})",
        ]
    optional = [op.kinds[n] == "optional" for n in inputs]
    tensors = [
        f"({n} is None or type({n}) is Tensor)" if o else f"type({n}) is Tensor"
        for n, o in zip(inputs, optional, strict=True)
    ]
    arrays = [
        f"_{n} = None if {n} is None else {n}.array" if o else f"_{n} = {n}.array"
        for n, o in zip(inputs, optional, strict=True)
    ]
    call = f"{', '.join('_' + n for n in inputs)}, _finish = PREPARE(OP, {', '.join(inputs)})"
    check = [
        f"{n} = {n} if {n} is None else OPERAND(OP, {n!r}, {n})"
        if o
        else f"{n} = OPERAND(OP, {n!r}, {n})"
        for n, o in zip(inputs, optional, strict=True)
    ]
    only_tensors = op.promote in (None, "match") or len(inputs) == 1
    if only_tensors:
        check = [
            f"if not {t}: REFUSE(OP, {n!r}, {n})" for n, t in zip(inputs, tensors, strict=True)
        ]
    lines += [f"if {' and '.join(tensors)}:", *_indent(arrays)]
    if op.promote is None:
        return [*lines, "    _finish = None", "else:", *_indent(check)]
    first = "_" + inputs[0]
    same = [
        f"(_{n} is None or _{n}.dtype is _d)" if o else f"_{n}.dtype is _d"
        for n, o in list(zip(inputs, optional, strict=True))[1:]
    ]
    lines += [
        f"    _d = {first}.dtype",
        f"    if {' and '.join([*same, '(_d is F32 or _d is F64)'])}:",
        "        _finish = None",
        "    else:",
        f"        {call}",
    ]
    if not only_tensors and len(inputs) == 2 and not any(optional):
        x, y = inputs
        lines += [
            f"elif type({x}) is Tensor and (type({y}) is float or type({y}) is int) and "
            f"((_d := {x}.array.dtype) is F32 or _d is F64):",
            f"    _{x} = {x}.array",
            f"    _{y} = {y}",
            "    _finish = None",
        ]
    if only_tensors:
        return [*lines, "else:", *_indent(check)]
    return [*lines, "else:", *_indent(check), f"    {call}"]


def _run(op: Any) -> list[str]:
    values = []
    for p in op.parameters:
        value = p.name if op.kinds[p.name] == "attribute" else "_" + p.name
        values.append(f"{p.name}={value}" if p.kind is p.KEYWORD_ONLY else value)
    shown = [n for n, kind in op.kinds.items() if kind != "attribute"]
    lines = [
        "_s = LOCAL.state",
        "try:",
        f"    _out = _s.enter(FORWARD, _s.cpu, {', '.join(values)})",
        "except Exception as _error:",
        f"    if not ENTERED(_error): raise EXPLAIN(OP, _error, {', '.join(shown)})",
        f"    _out = FORWARD(_s.cpu, {', '.join(values)})",
    ]
    if op.promote is not None:
        lines += [
            "if _finish is not None:",
            f"    _out = ROUNDED(_out, _finish, {len(op.outputs)})",
        ]
    return lines


def _locals(op: Any) -> tuple[list[str], list[str]]:
    """Local names of the raw outputs and of their tensors."""
    if len(op.outputs) == 1:
        return ["_out"], ["_t"]
    indices = range(len(op.outputs))
    return [f"_out{i}" for i in indices], [f"_t{i}" for i in indices]


def _results(op: Any) -> list[str]:
    return _locals(op)[1]


def _wrap(op: Any) -> list[str]:
    outs, tensors = _locals(op)
    lines = []
    if len(outs) > 1 or op.residuals:
        residuals = ["_r_" + name for name in op.residuals]
        lines.append(f"{', '.join([*outs, *residuals])} = _out")
    for out, t in zip(outs, tensors, strict=True):
        storage = f"{op.inputs[0]}.storage" if op.view else "STORAGE()"
        lines += [
            f"if type({out}) is not NDARRAY: {out} = ASARRAY({out})",
            f"{t} = NEW(Tensor)",
            f"{t}.array = {out}",
            f"{t}.storage = {storage}",
            f"{t}.tracked = {t}.is_parameter = False",
            f"{t}.node = {t}.base = {t}.hooks = {t}._grad = None",
        ]
    return lines


def _record(op: Any) -> list[str]:
    outs, tensors = _locals(op)
    lines = ["_r = _s.recording"]
    if op.view:
        x = op.inputs[0]
        attributes = [p.name for p in op.parameters[1:]]
        view = (
            f"_t.base = VIEW({x}, THIS, ({''.join(a + ', ' for a in attributes)}), _r is not False)"
        )
    else:
        view = ""
    if not op.inputs:
        return []
    inner: list[str] = []
    scalars = _takes_scalars(op)
    if op.sequence:
        (name,) = op.inputs
        inner += [f"_edges = tuple([EDGE(_x) for _x in {name}])"]
        tracked = "any(_e is not None for _e in _edges)"
        edges = "_edges"
    else:
        parts, flags = [], []
        for name in op.inputs:
            optional = op.kinds[name] == "optional"
            if scalars or optional:
                inner += [
                    f"if type({name}) is Tensor:",
                    f"    if {name}.base is not None: {name}.refresh()",
                    f"    _t_{name} = {name}.tracked",
                    "else:",
                    f"    _t_{name} = False",
                ]
                flag = f"_t_{name}"
            else:
                inner.append(f"if {name}.base is not None: {name}.refresh()")
                flag = f"{name}.tracked"
            flags.append(flag)
            parts.append(f"({name}.node or {name}) if {flag} else None")
        tracked = " or ".join(flags)
        edges = f"({', '.join(parts)},)"
    inner.append(f"if {tracked}:")
    single = len(outs) == 1
    node = [
        "_n = NEW(Node)",
        "_n.op = OP",
        f"_n.edges = {edges}",
        f"_n.saved = {_saved(op)}",
        f"_n.guards = {_guards(op, scalars)}",
        f"_n.call = {_call(op) if op.composite is not None else None}",
        "_n.hooks = _n.where = None",
    ]
    if single:
        node += ["_n.shape = _out.shape", "_n.dtype = _out.dtype"]
        node += ["_t.node = _n", "_t.tracked = True"]
    else:
        node.append(f"_n.shape = ({', '.join(o + '.shape' for o in outs)})")
        node.append(f"_n.dtype = ({', '.join(o + '.dtype' for o in outs)})")
        for i, (out, t) in enumerate(zip(outs, tensors, strict=True)):
            node += [
                f"if {out}.dtype.kind not in 'iub':",
                f"    {t}.node = (_n, {i})",
                f"    {t}.tracked = True",
            ]
    node.append("if _r is not True: _r(_n)")
    inner += _indent(node)
    lines += ["if _r:", *_indent(inner)]
    if view:
        lines.append(view)
    return lines


def _flag(op: Any, name: str) -> str:
    """Expression for whether the input `name` has a gradient (inside the recording branch)."""
    local = _takes_scalars(op) or op.kinds[name] == "optional"
    return f"_t_{name}" if local else f"{name}.tracked"


def _value(op: Any, name: str) -> str:
    """Expression for what the gradient gets under `name`: originals, not promoted copies."""
    if name in op.needed_by:
        array = f"{name}.array"
        if _takes_scalars(op):
            array = f"({array} if type({name}) is Tensor else {name})"
        return f"{array} if {_flag(op, op.needed_by[name])} else None"
    if name in op.inputs:
        if op.sequence:
            return f"tuple([_x.array for _x in {name}])"
        if len(op.inputs) == 1 and op.kinds[name] == "array":
            return f"{name}.array"
        return f"{name}.array if type({name}) is Tensor else {name}"
    if name in op.outputs:
        return "_out" if len(op.outputs) == 1 else f"_out{op.outputs.index(name)}"
    if name in op.residuals:
        return "_r_" + name
    if op.kinds.get(name) == "index":
        return "_" + name
    if name.endswith("_shape") and name[:-6] in op.inputs:
        base = name[:-6]
        if op.sequence:
            return f"[_x.shape for _x in _{base}]"
        if len(op.inputs) == 1 and op.kinds[base] == "array":
            return f"_{base}.shape"
        return f"_{base}.shape if type({base}) is Tensor else ()"
    return name


def _saved(op: Any) -> str:
    return "(" + "".join(_value(op, name) + ", " for name in op.saves) + ")"


def _guards(op: Any, scalars: bool) -> str:
    parts = []
    for name in op.saves:
        if name in op.inputs and op.sequence:
            return f"tuple([_g for _x in {name} for _g in (_x.storage, _x.storage.version)])"
        if name in op.inputs and (scalars or op.kinds[name] == "optional" or name in op.needed_by):
            used = [f"type({name}) is Tensor"] if scalars or op.kinds[name] == "optional" else []
            if name in op.needed_by:
                used.append(_flag(op, op.needed_by[name]))
            guard = f"({name}.storage, {name}.storage.version)"
            parts.append(f"*({guard} if {' and '.join(used)} else ())")
        elif name in op.inputs or (op.kinds.get(name) == "index"):
            guard = f"{name}.storage, {name}.storage.version"
            parts.append(guard if name in op.inputs else f"*(() if {name} is None else ({guard}))")
        elif name in op.outputs:
            t = "_t" if len(op.outputs) == 1 else f"_t{op.outputs.index(name)}"
            parts.append(f"{t}.storage, {t}.storage.version")
    return "(" + "".join(part + ", " for part in parts) + ")"


def _call(op: Any) -> str:
    """All arguments of a fused operator; inputs as (array, storage, version)."""
    parts = []
    for name, kind in op.kinds.items():
        if kind in ("array", "optional"):
            kept = f"({name}.array, {name}.storage, {name}.storage.version)"
            parts.append(f"None if {name} is None else {kept}" if kind == "optional" else kept)
        else:
            parts.append(name)
    return "(" + "".join(part + ", " for part in parts) + ")"
