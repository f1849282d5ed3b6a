"""Compiling: what setup.py and the tests have in common, and all of csrc/cuda.

`compiled` keeps objects and makes them anew when a source, a header or a flag changed. The kernels
of csrc/cuda are compiled three times: by nvcc for the extension, by g++ for the emulator, and at
run time by NVRTC, from the text that `text_of` gives.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
CUDA = ROOT / "csrc" / "cuda"
# machine code for A100 and H100, and code that the driver compiles for what comes later
TARGETS = ("compute_80,code=sm_80", "compute_90,code=sm_90", "compute_80,code=compute_80")
NVCC_FLAGS = ["-std=c++17", "-O3", "-lineinfo", "-Xptxas=-v"]
NVCC_FLAGS += ["-Xcompiler=-fPIC,-fvisibility=hidden", *[f"-gencode=arch={t}" for t in TARGETS]]
# -ffp-contract=off: products and sums are rounded one by one where a kernel asks for that;
# -fno-tree-sra: an access of 16 bytes stays one
EMULATOR_FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-DEMULATED", "-ffp-contract=off"]
EMULATOR_FLAGS += ["-fno-strict-aliasing", "-fno-tree-sra", "-Wno-ignored-optimization-argument"]
EMULATOR_FLAGS += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]


def compiler() -> list[str]:
    """The C++ compiler and its first arguments; empty if there is none."""
    candidates = [os.environ.get("CXX"), sysconfig.get_config_var("CXX"), "g++", "clang++", "c++"]
    for candidate in filter(None, candidates):
        words = shlex.split(candidate)
        if shutil.which(words[0]):
            return words
        if candidate == os.environ.get("CXX"):
            raise SystemExit(f"CXX={candidate}: there is no such program")
    return []


def run(command: list[str]) -> str:
    """Run a command; what it printed, and an end of the build with that if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def compiled(command: list[str], result: Path, sources: Iterable[Path]) -> str:
    """Run a compiler unless `result` was made by this command from these sources; its words.

    The words are kept beside the result in a file ending in `.said`, and are given again.
    """
    stamp, said = result.with_suffix(".sha256"), result.with_suffix(".said")
    text = "\0".join(command).encode() + b"".join(path.read_bytes() for path in sources)
    made_from = hashlib.sha256(text).hexdigest()
    if all(p.exists() for p in (result, stamp, said)) and stamp.read_text() == made_from:
        return said.read_text()
    result.parent.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    said.write_text(run([*command, "-o", str(result)]))
    stamp.write_text(made_from)
    return said.read_text()


# ---------------------------------------------------------------- csrc/cuda


def families() -> list[str]:
    """The kernel files, without their suffix."""
    return sorted(path.stem for path in CUDA.glob("*.cu"))


def nvcc() -> str:
    """The CUDA compiler: of CUDA_HOME, on PATH, or in /usr/local/cuda*; empty without one."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    for home in filter(None, homes):
        if found := shutil.which("nvcc", path=str(Path(home) / "bin")):
            return found
    places = ["/usr/local/cuda", *map(str, sorted(Path("/usr/local").glob("cuda-*"), reverse=True))]
    return shutil.which("nvcc") or next(
        filter(None, (shutil.which("nvcc", path=f"{place}/bin") for place in places)), ""
    )


def cuda_compiler() -> str:
    """nvcc where there is a C++ compiler, too."""
    return nvcc() if compiler() else ""


def cuda_home(program: str) -> Path:
    """The folder of CUDA's headers and libraries that belong to this nvcc."""
    said = run([program, "--dryrun", "-x", "cu", "-E", os.devnull, "-o", os.devnull])
    return Path(re.findall(r"#\$ TOP=(.+)", said)[0]).resolve()


_INCLUDE = re.compile(r'^\s*#\s*include "(.+)"', re.MULTILINE)


def sources(path: Path) -> list[Path]:
    """A file and all of ours that it includes."""
    found: list[Path] = []
    todo = [path.resolve()]
    while todo:
        file = todo.pop()
        if file not in found:
            found.append(file)
            names = _INCLUDE.findall(file.read_text(encoding="utf-8"))
            todo += [(file.parent / name).resolve() for name in names]
    return sorted(found)


def nvcc_flags(program: str) -> list[str]:
    """What this nvcc is given for every kernel file."""
    found = re.search(r"release (\d+)\.(\d+)", run([program, "--version"]))
    release = (int(found[1]), int(found[2])) if found else (0, 0)
    # smaller machine code, where nvcc can
    return NVCC_FLAGS + (["-compress-mode=size"] if release >= (12, 8) else [])


def compile_kernels(program: str, folder: Path) -> list[str]:
    """Compile the kernel files with nvcc; the objects. What ptxas said stands in `*.said`."""

    flags = nvcc_flags(program)

    def one(name: str) -> str:
        source, result = CUDA / f"{name}.cu", folder / f"{name}.o"
        compiled([program, *flags, "-c", str(source)], result, sources(source))
        return str(result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, families()))


def cuda_extension(target: Path, to_bind: list[str]) -> None:
    """Compile and link `minidl._cuda`; to_bind: flags of the source that knows Python."""
    program, folder = nvcc(), ROOT / "build" / "cuda"
    home = cuda_home(program)
    objects = compile_kernels(program, folder)
    source, result = CUDA / "bindings.cpp", folder / "bindings.o"
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", f"-I{home}/include"]
    compiled([*compiler(), *flags, *to_bind, "-c", str(source)], result, sources(source))
    libraries = next(p for p in (home / "lib64", home / "lib") if p.is_dir())
    linked = ["-lcudart_static", "-lrt", "-ldl", "-lpthread"]
    run([*compiler(), "-shared", "-s", *objects, str(result), f"-L{libraries}", *linked]
        + ["-o", str(target)])  # fmt: skip


def write_texts(folder: Path) -> None:
    """Write the text of every kernel file for NVRTC."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in families():
        (folder / f"{name}.cu").write_text(text_of(name), encoding="utf-8")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Run the block while no other process does for this folder: tests run in several."""
    import fcntl  # not on Windows, where setup.py reads this file, too

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def emulator(sanitize: str = "") -> Path:
    """The kernel files for the CPU, as a library for ctypes.

    sanitize: "" watches every access itself (memory.cpp), else what -fsanitize= takes.
    """
    folder = ROOT / "build" / f"emulator{'-' + sanitize.replace(',', '-') if sanitize else ''}"
    own = []
    if sanitize:
        own = [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-DUNWATCHED"]
    # the compiler announces accesses; the library that usually listens is not linked
    watched = [] if sanitize else ["-fsanitize=thread"]

    def one(source: Path) -> str:
        result = folder / f"{source.stem}.o"
        more = [*own, "-O2"] if source.suffix == ".cpp" else [*own, *watched, "-x", "c++"]
        command = [*compiler(), *EMULATOR_FLAGS, *more, "-c", str(source)]
        compiled(command, result, sources(source))
        return str(result)

    files = [*(CUDA / "emulator").glob("*.c*"), *(CUDA / f"{name}.cu" for name in families())]
    library = folder / "emulator.so"
    with alone(folder), ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(one, sorted(files)))
        link = [*compiler(), "-shared", "-Wl,-Bsymbolic", *own, *objects]
        compiled(link, library, map(Path, objects))
    return library


def text_of(name: str) -> str:
    """The kernel file `name` with all that it includes, for NVRTC."""
    seen: set[Path] = set()

    def expanded(path: Path) -> str:
        if path in seen or path.parent.name == "emulator":
            return ""
        seen.add(path)
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            included = _INCLUDE.match(line)
            if included:
                line = expanded((path.parent / included[1]).resolve())
            if line.strip() != "#pragma once" and not line.startswith("//"):
                lines.append(line)
        return "".join(lines)

    return expanded((CUDA / f"{name}.cuh").resolve())
