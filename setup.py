"""Build script of minidl: compiles csrc/cpu into `minidl._cpu`.

Every kernel file is compiled once per instruction set, under its own flags and namespace, in
parallel; the rest once, for any processor. Objects are kept and built again when a source, a header
or a flag changed. Only a missing compiler is forgiven: then minidl runs on NumPy, and `minidl info`
gives the reason recorded here. Environment: CXX, the compiler; MINIDL_NATIVE, 1 makes the extension
mandatory and 0 leaves it out.

`python setup.py selftest [--sanitize=address,undefined|thread]` runs csrc/cpu/selftest.cpp, and
build_ext takes the same option; `.ci/run` has how to test such a build.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
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


def run(command: list[str]) -> None:
    """Run a command; its output, and an end of the build, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")


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
    cxx, flags = compiler(), sanitizing(sanitize)
    folder = ROOT / "build" / (sanitize.replace(",", "-") or "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    headers = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.h")))
    names = sorted(p.stem for p in SOURCES.glob("*.cpp") if not p.stem.startswith(left_out))

    def compile_one(unit: tuple[str, str, list[str]]) -> str:
        target, name, own = unit
        source = SOURCES / f"{name}.cpp"
        more = to_bind if name.startswith("bind") else []
        command = [*cxx, *FLAGS, *own, *flags, *more, "-c", str(source)]
        text = "\0".join(command).encode() + source.read_bytes() + headers
        made_from = hashlib.sha256(text).hexdigest()
        result, stamp = folder / f"{target}.o", folder / f"{target}.sha256"
        if not (result.exists() and stamp.exists() and stamp.read_text() == made_from):
            stamp.unlink(missing_ok=True)
            run([*command, "-o", str(result)])
            stamp.write_text(made_from)
        return str(result)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # the long ones first
        objects = pool.map(compile_one, sorted(units(names), key=lambda u: u[1] in ONCE))
        return folder, list(objects)


class BuildNative(build_ext):
    """Build the extension, or record why there is none."""

    user_options = [*build_ext.user_options, ("sanitize=", None, "address,undefined or thread")]

    def initialize_options(self) -> None:
        """No sanitizer."""
        super().initialize_options()
        self.sanitize = ""

    def run(self) -> None:
        """Build, and leave a note of how beside the extension or in its place."""
        wanted = os.environ.get("MINIDL_NATIVE", "")
        self.found = compiler() if wanted != "0" else []
        self.reason = "" if self.found else "no C++ compiler at install"
        if wanted == "0":
            self.reason = "MINIDL_NATIVE=0 at install"
        if self.reason and wanted == "1":
            raise SystemExit(f"MINIDL_NATIVE=1, but there is {self.reason}")
        for extension in self.extensions:
            extension.optional = bool(self.reason)  # or its absence is an error
        super().run()
        target = Path(self.get_ext_fullpath("minidl._cpu"))
        if self.reason:
            target.unlink(missing_ok=True)
        (target.parent / "_build.txt").write_text(f"{self.reason}\n", encoding="utf-8")

    def build_extension(self, ext: Extension) -> None:
        """Compile what changed and link."""
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.reason:
            target.unlink(missing_ok=True)
            print(f"minidl: built without native kernels: {self.reason}", file=sys.stderr)
        else:
            import numpy
            import pybind11

            places = [numpy.get_include(), pybind11.get_include(), sysconfig.get_path("include")]
            to_bind = [f"-I{place}" for place in places]
            _, objects = compile_all("selftest", self.sanitize, to_bind)
            flags = ["-shared", "-pthread", *sanitizing(self.sanitize)]
            run([*self.found, *flags, *objects, "-o", str(target)])


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
        run([*compiler(), *flags, *objects, "-o", str(program)])
        raise SystemExit(subprocess.run([str(program)]).returncode)


setup(
    ext_modules=[Extension("minidl._cpu", [])],
    cmdclass={"build_ext": BuildNative, "selftest": SelfTest},
)
