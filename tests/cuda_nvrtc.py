"""Compile the kernels of csrc/cuda with NVRTC, as CuPy does where there is no nvcc; no GPU needed.

`python tests/cuda_nvrtc.py [sm_89 ...]` needs CuPy and NVIDIA's package nvidia-cuda-nvrtc. For
every family it prints the kernels, the time and the size for each GPU generation, and ends with 1
if one does not compile or a kernel of the source is missing in what was compiled.
"""

from __future__ import annotations

import importlib
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "csrc"))

import build  # noqa: E402

TARGETS = ("sm_80", "sm_90")  # A100, H100; of others ask by name
# beside ours what CuPy 14 adds to every compilation
OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


def compiled(name: str, target: str) -> bytes:
    """The machine code of a family."""
    nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    own = importlib.import_module("minidl.backends.native_cuda.launch").OPTIONS
    program = nvrtc.createProgram(build.text_of(name), f"{name}.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*own, *OPTIONS, f"-arch={target}"))
        return nvrtc.getCUBIN(program)
    except Exception as error:
        raise SystemExit(f"{name}, {target}: {error}\n{nvrtc.getProgramLog(program)}") from None
    finally:
        nvrtc.destroyProgram(program)


def kernels(name: str) -> list[str]:
    """The kernels of a family, from what the preprocessor makes of its list."""
    text = build.run([*build.compiler(), "-x", "c++", "-E", str(build.CUDA / f"{name}.cuh")])
    return re.findall(r'extern "C"\s+__global__[^;{]*?\b(\w+)\s*\(\s*const\s+__grid', text)


def main() -> int:
    """Compile everything."""
    total, targets = 0, sys.argv[1:] or TARGETS
    for name in build.families():
        names, line = kernels(name), []
        assert names, name
        for target in targets:
            start = time.monotonic()
            code = compiled(name, target)
            line.append(f"{target} {time.monotonic() - start:.1f} s {len(code) / 1e3:.0f} KB")
            lost = [kernel for kernel in names if kernel.encode() not in code]
            if lost:
                print(f"{name}, {target}: not in the code: {', '.join(lost)}", file=sys.stderr)
                return 1
        total += len(names)
        print(f"{name:12} {len(names):4} kernels: {', '.join(line)}")
    print(f"NVRTC compiles {total} kernels of {len(build.families())} families")
    return 0 if total else 1


if __name__ == "__main__":
    sys.exit(main())
