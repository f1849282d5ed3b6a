"""Build script of minidl: compiles csrc/cpu into `minidl._cpu` and csrc/cuda into `minidl._cuda`.

Every kernel file of csrc/cpu is compiled once per instruction set, under its own flags and
namespace, in parallel; the rest once, for any processor. Objects are kept and built again when a
source, a header or a flag changed. Only a missing compiler is forgiven: then minidl runs on NumPy
(and CuPy compiles the GPU's kernels at run time), and `minidl info` gives the reason recorded here.
Environment: CXX, the compiler; MINIDL_NATIVE and MINIDL_CUDA, 1 makes the extension mandatory and
0 leaves it out; CUDA_HOME, where nvcc is.

`python setup.py selftest [--sanitize=address,undefined|thread]` runs csrc/cpu/selftest.cpp, and
build_ext takes the same option; `.ci/run` has how to test such a build.
"""

import os
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "csrc"))

import build as csrc  # noqa: E402

SOURCES = ROOT / "csrc" / "cpu"
# compiled for any processor: no kernels
ONCE = ("allocator", "dispatch", "pages", "parallel", "weights")
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden"]
FLAGS += ["-ffp-contract=fast", "-fno-math-errno", "-Wall", "-Wextra"]
if os.environ.get("MINIDL_NATIVE") == "1":
    FLAGS.append("-Werror")
AVX512 = "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma"
AVX512 += " -Wno-uninitialized -Wno-maybe-uninitialized"  # GCC's own headers (PR 105593)
ISAS = {"baseline": ""}
if os.uname().machine == "x86_64":
    ISAS |= {
        "avx2": "-mavx2 -mfma",
        "avx512": AVX512,
        "avx512_bf16": f"{AVX512} -mavx512bf16 -mavx512vnni",
    }


def units(names: list[str]) -> list[tuple[str, str, list[str]]]:
    """(object name, source name, flags): kernel files once per instruction set."""
    made = []
    for name in names:
        if name in ONCE or name.startswith("bind") or name == "selftest":
            made.append((name, name, []))
            continue
        for isa, flags in ISAS.items():
            own = [*flags.split(), f"-DKERNEL_ISA=k_{isa}", f'-DKERNEL_NAME="{isa}"']
            made.append((f"{name}.{isa}", name, own))
    return made


def sanitizing(sanitize: str) -> list[str]:
    """The flags of a sanitizer."""
    return ["-g", "-O1", f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"] if sanitize else []


def compile_all(left_out: str, sanitize: str, to_bind: list[str]) -> tuple[Path, list[str]]:
    """Compile all sources but those whose names start with `left_out`; the folder and the objects.

    to_bind: further flags of the sources that know Python.
    """
    cxx, flags = csrc.compiler(), sanitizing(sanitize)
    folder = ROOT / "build" / (sanitize.replace(",", "-") or "cpu")
    headers = sorted(SOURCES.glob("*.h"))
    names = sorted(p.stem for p in SOURCES.glob("*.cpp") if not p.stem.startswith(left_out))

    def compile_one(unit: tuple[str, str, list[str]]) -> str:
        target, name, own = unit
        source, result = SOURCES / f"{name}.cpp", folder / f"{target}.o"
        more = to_bind if name.startswith("bind") else []
        command = [*cxx, *FLAGS, *own, *flags, *more, "-c", str(source)]
        csrc.compiled(command, result, [source, *headers])
        return str(result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # the long ones first
        objects = pool.map(compile_one, sorted(units(names), key=lambda u: u[1] in ONCE))
        return folder, list(objects)


# name -> the variable that forces it, what finds its compiler, and what is missing without one
EXTENSIONS = {
    "minidl._cpu": ("MINIDL_NATIVE", csrc.compiler, "no C++ compiler at install"),
    "minidl._cuda": ("MINIDL_CUDA", csrc.cuda_compiler, "no nvcc at install"),
}


class BuildNative(build_ext):
    """Build the extensions, or record why there is none."""

    user_options = [*build_ext.user_options, ("sanitize=", None, "address,undefined or thread")]

    def initialize_options(self) -> None:
        """No sanitizer."""
        super().initialize_options()
        self.sanitize = ""

    def run(self) -> None:
        """Build, and leave a note of how beside each extension or in its place."""
        self.reasons = {}
        for extension in self.extensions:
            variable, compiler, missing = EXTENSIONS[extension.name]
            wanted = os.environ.get(variable, "")
            reason = f"{variable}=0 at install" if wanted == "0" else "" if compiler() else missing
            if reason and wanted == "1":
                raise SystemExit(f"{variable}=1, but there is {reason}")
            extension.optional = bool(reason)  # or its absence is an error
            self.reasons[extension.name] = reason
        super().run()
        for name, reason in self.reasons.items():
            target = Path(self.get_ext_fullpath(name))
            note = "_build.txt" if name == "minidl._cpu" else "_build_cuda.txt"
            (target.parent / note).write_text(f"{reason}\n", encoding="utf-8")
            if reason:
                target.unlink(missing_ok=True)
        csrc.write_texts(target.parent / "_kernels")

    def build_extension(self, ext: Extension) -> None:
        """Compile what changed and link."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if reason := self.reasons[ext.name]:
            print(f"minidl: built without {ext.name}: {reason}", file=sys.stderr)
            return
        import numpy
        import pybind11

        places = [numpy.get_include(), pybind11.get_include(), sysconfig.get_path("include")]
        to_bind = [f"-I{place}" for place in places]
        if ext.name == "minidl._cuda":
            csrc.cuda_extension(target, to_bind)
            return
        _, objects = compile_all("selftest", self.sanitize, to_bind)
        flags = ["-shared", "-pthread", *sanitizing(self.sanitize)]
        csrc.run([*csrc.compiler(), *flags, *objects, "-o", str(target)])


class SelfTest(Command):
    """Build csrc/cpu/selftest.cpp, with a sanitizer if asked, and run it."""

    description = "build and run the self-test of the kernels"
    user_options = [("sanitize=", None, "address,undefined or thread")]

    def initialize_options(self) -> None:
        """No sanitizer."""
        self.sanitize = ""

    def finalize_options(self) -> None:
        """Nothing depends on other commands."""

    def run(self) -> None:
        """Build and run."""
        folder, objects = compile_all("bind", self.sanitize, [])
        program = folder / "selftest"
        flags = ["-pthread", *sanitizing(self.sanitize)]
        csrc.run([*csrc.compiler(), *flags, *objects, "-o", str(program)])
        raise SystemExit(subprocess.run([str(program)]).returncode)


setup(
    ext_modules=[Extension(name, []) for name in EXTENSIONS],
    cmdclass={"build_ext": BuildNative, "selftest": SelfTest},
)
