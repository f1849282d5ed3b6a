"""`minidl info`: versions, processor, threads, GPUs, and what serves each kernel entry and why."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from minidl import backends, train
from minidl.backends import cuda, native, native_cuda
from minidl.backends.table import TABLES
from minidl.cli.common import say
from minidl.train.report import columns

# beside Python's: what computes, or decides how
_PACKAGES = ("ml_dtypes", "threadpoolctl", "safetensors", "numba", "cupy-cuda13x", "cupy-cuda12x")
_FEATURES = tuple(
    "sse4_2 avx avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni avx512_bf16 "  # noqa: SIM905
    "avx512_fp16 avx_vnni amx_tile amx_bf16 amx_int8 neon sve".split()
)
_LAYERS = ("numpy", "cupy", "reference", "numba", "native")  # each is preferred to those before


def run(as_json: bool) -> int:
    """Print everything; always 0."""
    facts = train.environment()
    facts["versions"] = _versions()
    facts["processor"] = _processor()
    facts["threads"] = threads()
    facts["blas"] = _blas()
    facts["gpus"] = cuda.describe()
    facts["gpu_kernels"] = native_cuda.describe()
    facts["tables"] = backends.available()
    facts["kernels"] = kernels()
    facts["kernels_on_gpu"] = kernels("cuda") if cuda.is_available() else {}
    say(train.to_json(facts, indent=2) if as_json else _text(facts))
    return 0


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> dict[str, Any]:
    name, flags = platform.processor() or platform.machine(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
                break
    except OSError:
        pass  # another system than Linux: the name that Python knows
    return {
        "name": name,
        "features": [flag for flag in _FEATURES if flag in flags],
        "isa": native.cpu.isa() if native.cpu else None,
        "isas": native.cpu.isas() if native.cpu else [],
    }


def threads() -> dict[str, Any]:
    """Processors, what limits them, the threads that one kernel may use, and why so many.

    As csrc/cpu/parallel.cpp counts: physical cores among the processors of the affinity, at most
    what the control groups allow, unless MINIDL_THREADS names a number. Without the extension
    it is the processors of the affinity.
    """
    logical = os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    cores = physical(allowed or list(range(logical)))
    quota = native.cpu.cpu_quota("/proc/self/cgroup", "/sys/fs/cgroup") if native.cpu else None
    if quota is not None and quota >= max(logical, 256):
        quota = None  # the largest number that the pool knows: no limit is set
    used, wanted = backends.get_num_threads(), os.environ.get("MINIDL_THREADS")
    if wanted:
        why = f"MINIDL_THREADS={wanted}"
    elif native.cpu is None:
        why = (
            f"the affinity allows {len(allowed) or 1} of {logical} processors, for Numba's kernels"
            " (there are no native ones); NumPy's BLAS has threads of its own"
        )
    else:
        default = min(cores, quota or cores)
        if used != default:
            why = "set by the program"
        elif quota is not None and quota < cores:
            why = f"the control group's quota allows {quota} of {cores} cores"
        elif len(allowed) not in (0, logical):
            why = f"the affinity allows {len(allowed)} of {logical} processors, {_cores(cores)}"
        else:
            why = f"{logical} processors, {_cores(cores)}; no affinity or quota limits them"
    return {
        "logical": logical,
        "affinity": len(allowed) or logical,
        "cores": cores,
        "quota": quota,
        "MINIDL_THREADS": wanted,
        "used": used,
        "why": why,
    }


def _cores(count: int) -> str:
    return f"{count} physical core{'s' if count != 1 else ''}"


def physical(processors: list[int]) -> int:
    """How many cores these logical processors belong to."""
    given, count = set(processors), 0
    for number in processors:
        path = f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        try:
            text = Path(path).read_text(encoding="ascii").replace("-", ",").split(",")[0]
            first = int(text)
        except (OSError, ValueError):
            first = number
        count += first == number or first not in given
    return count


def _blas() -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    return [
        {
            "name": pool["internal_api"],
            "version": pool["version"],
            "kernels": pool.get("architecture"),
            "threads": pool["num_threads"],
        }
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]


def kernels(name: str = "default") -> dict[str, dict[str, Any]]:
    """`backends.report` with the function of each entry, and why no better layer serves it.

    name: a table of `backends.available()`; "default" is the CPU's that is in use.
    """
    found = backends.report(name)
    table = TABLES["start"] if name == "default" else TABLES[name]
    present = sorted({source["layer"] for source in found.values()}, key=_rank)
    lowest = _rank("reference" if table.device == "cpu" else "cupy")
    for entry, source in found.items():
        layer, function = source["layer"], getattr(table, entry)
        source["function"] = _function(entry, layer, function, table.device)
        source["half"] = entry in table.half
        source["reasons"] = [
            *source["reasons"],
            *(f"{better}: has no kernel for it" for better in present
              if _rank(better) > max(_rank(layer), lowest)),
        ]  # fmt: skip
    return found


def _rank(layer: str) -> int:
    return _LAYERS.index(layer) if layer in _LAYERS else len(_LAYERS)


def _function(entry: str, layer: str, function: Any, device: str) -> str:
    if layer == "native" and device == "cpu":
        return f"minidl._cpu.{entry}"
    module = getattr(function, "__module__", None) or layer
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", entry)
    if "<locals>" in name and layer == "native":
        return f"{module}: {entry}"
    return f"{layer}: {entry}" if "<locals>" in name else f"{module}.{name}"


def _text(facts: dict[str, Any]) -> str:
    processor, pool = facts["processor"], facts["threads"]
    blas = [f"{b['name']} {b['version']} ({b['kernels']}), threads {b['threads']}"
            for b in facts["blas"]]  # fmt: skip
    limits = [f"{pool['logical']} processors", f"affinity {pool['affinity']}"]
    limits += [f"physical cores {pool['cores']}", f"quota {pool['quota'] or 'none'}"]
    limits += [f"MINIDL_THREADS {pool['MINIDL_THREADS'] or 'not set'}"]
    lines = columns(
        [
            ("minidl", facts["minidl"]),
            ("python", facts["python"]),
            ("numpy", facts["numpy"]),
            *facts["versions"].items(),
            ("platform", facts["platform"]),
            ("processor", processor["name"]),
            ("features", " ".join(processor["features"]) or "unknown"),
            ("native", facts["native"]),
            ("cores", ", ".join(limits)),
            ("threads", f"{pool['used']}: {pool['why']}"),
            ("blas", "; ".join(blas) or "none found"),
            ("gpus", _said(facts["gpus"])),
            ("gpu kernels", facts["gpu_kernels"]),
            ("tables", ", ".join(facts["tables"])),
        ]
    )
    for where, found in (("", facts["kernels"]), (" on the GPU", facts["kernels_on_gpu"])):
        for layer in sorted({s["layer"] for s in found.values()}, key=_rank, reverse=True):
            own = {e: s for e, s in found.items() if s["layer"] == layer}
            about = _about(f"{layer}{where}", processor)
            lines += ["", f"{len(own)} kernel entries{where} served by {layer}{about}"]
            rows = [
                (
                    entry,
                    source["function"] + (" *" if source["half"] else ""),
                    "; ".join(source["reasons"]),
                )
                for entry, source in own.items()
            ]
            lines += columns(rows)
    return "\n".join(lines)


def _said(gpus: Any) -> str:
    if isinstance(gpus, list | tuple):
        return "; ".join(map(str, gpus)) or "none"
    return str(gpus)


def _about(layer: str, processor: dict[str, Any]) -> str:
    if layer == "native":
        return (
            f" ({processor['isa']}); * takes 16-bit floats as they are, for others operators"
            " widen;\nwhat a kernel does not take (most take no float64) goes to the layer below"
        )
    if layer == "native on the GPU":
        return (
            "; * takes 16-bit floats as they are, for others operators widen;\n"
            "what a kernel does not take goes to CuPy's entry"
        )
    if layer == "numpy":
        return ", the array module's own functions"
    return ""
