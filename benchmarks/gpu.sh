#!/usr/bin/env bash
# Everything that needs a GPU, in one call of less than 9 minutes: build, tests, sanitizers, times.
#
#   benchmarks/gpu.sh [--dry] [--steps "build tests memcheck racecheck synccheck verify step kernels"]
#
# Run from a clone, with python3 (PYTHON names another) and the packages of the extra `test` and
# CuPy; PyTorch, if it is there, is the rival. Nothing is fetched. A step that fails does not stop
# the others, and the exit code is 1 at the end. OUT (default gpu-results) gets log.txt, summary.txt,
# gpu_kernels.json, gpu_step.json and the report of `minidl verify`; GPU_SECONDS (default 525) is
# the time for all of it. --dry runs every step in a small form without a GPU, on the emulator.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dry=""
wanted=""
while (($#)); do
    case $1 in
        --dry) dry=1 ;;
        --steps)
            wanted=${2:?"--steps needs the names of steps"}
            shift
            ;;
        -h | --help)
            sed -n '2,/^set /s/^# \{0,1\}//p' benchmarks/gpu.sh
            exit 0
            ;;
        *)
            echo "gpu.sh: unknown option $1; see --help" >&2
            exit 2
            ;;
    esac
    shift
done

python=${PYTHON:-python3}
limit=${GPU_SECONDS:-525}
out=${OUT:-gpu-results}
mkdir -p "$out"
out=$(cd "$out" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
: >"$out/log.txt"
export python dry out scratch
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export OPENBLAS_NUM_THREADS=1 # tests run side by side

has() {
    "$python" -c "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in sys.argv[1:]))" "$@"
}
export -f has

# ---------------------------------------------------------------- the steps

# The kernels: by nvcc where it and what the extension needs are here, else as text for NVRTC.
build() {
    if [[ -n $dry ]]; then
        "$python" -c 'import sys; sys.path.insert(0, "csrc"); import build; print("the emulator:", build.emulator())'
        return
    fi
    # the text for NVRTC, and no kernels of an earlier build; then why nvcc cannot, or nothing
    local why
    why=$("$python" - <<'PYTHON'
import sys
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_config_var

sys.path.insert(0, "csrc")
import build

build.write_texts(Path("minidl/_kernels"))
Path(f"minidl/_cuda{get_config_var('EXT_SUFFIX')}").unlink(missing_ok=True)
lacking = [name for name in ("setuptools", "pybind11") if find_spec(name) is None]
if not build.nvcc():
    print("there is no nvcc")
elif not build.compiler():
    print("there is no C++ compiler beside nvcc")
elif lacking:
    print(f"{' and '.join(lacking)} not installed")
PYTHON
    )
    if [[ -n $why ]]; then
        echo "$why: NVRTC compiles the kernels at their first use"
    else
        # the kernels of the CPU take minutes: they are left as they are, unless MINIDL_NATIVE is set
        local native=${MINIDL_NATIVE-} suffix
        suffix=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
        if [[ -z $native && ! -e minidl/_cpu$suffix ]]; then native=0; fi
        if ! MINIDL_CUDA=1 MINIDL_NATIVE=$native "$python" setup.py -q build_ext --inplace; then
            echo "the build by nvcc failed: NVRTC compiles the kernels at their first use"
            return 1
        fi
    fi
    "$python" - <<'PYTHON'
import sys

from minidl import cuda
from minidl.backends import native_cuda

if not cuda.is_available():
    sys.exit(cuda.describe())
print(*cuda.describe(), sep="\n")
print("kernels of ours:", native_cuda.describe())
PYTHON
}

# All that runs on a GPU: the tables "cupy" and "cuda", graphs, streams, memory, operators.
tests() {
    local files=(tests/test_gpu.py tests/test_devices.py tests/test_cupy_modules.py tests/test_cupy_operators.py)
    local options=(-q -p no:benchmark -p no:cacheprovider)
    if [[ -n $dry ]]; then
        options+=(-k "not test_operator or softmax")
    elif has xdist; then
        options+=(-n 8)
    fi
    "$python" -m pytest "${options[@]}" "${files[@]}"
}

# Every row once at a tiny shape, by compute-sanitizer's tool $1.
sanitizer() {
    local driver=("$python" -m benchmarks.gpu_kernels --check --no-rivals --shapes tiny --seconds 30)
    if [[ -n $dry ]]; then
        "${driver[@]}" --dry
        return
    fi
    local program log=$scratch/$1.sanitizer
    program=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1) || true
    if [[ -z $program ]]; then
        echo "left out: compute-sanitizer is not here"
        return
    fi
    local status=0
    "$program" --tool "$1" --error-exitcode 9 --print-limit 20 "${driver[@]}" >"$log" 2>&1 || status=$?
    cat "$log"
    if ((status)) && grep -q "Device not supported" "$log"; then
        echo "left out: compute-sanitizer does not run on this machine"
        return
    fi
    if grep -qE 'SUMMARY: [1-9]' "$log"; then status=9; fi
    return "$status"
}

verify() {
    rm -rf "$out/verify"
    if [[ -n $dry ]]; then
        "$python" -m minidl verify --backend reference --op 'softmax*' --examples 2 --out "$out/verify"
    else
        "$python" -m minidl verify --backend cuda --backend cupy --seconds 25 --out "$out/verify"
    fi
}

# ${1}: seconds after which no row is begun
kernels() {
    local options=(--json "$out/gpu_kernels.json" --seconds "$1")
    if [[ -n $dry ]]; then options+=(--dry); fi
    "$python" -m benchmarks.gpu_kernels "${options[@]}"
}

# A training step, eager and as a graph.
train() {
    local options=(--json "$out/gpu_step.json")
    if [[ -n $dry ]]; then options+=(--dry --rounds 2); fi
    "$python" -m benchmarks.gpu_step "${options[@]}"
}

export -f build tests sanitizer verify kernels train

# ---------------------------------------------------------------- running them

failed=0
summary=()

# The line of a log that says most.
figure() {
    case $1 in
        memcheck | racecheck | synccheck)
            grep -E 'SUMMARY|^left out|rows,' "$2" | tail -n 2 | paste -sd ';' ;;
        step) awk '/ ms / { printf "%s%s %s %s %s ms", gap, $1, $2, $3, $4; gap = "; " }' "$2" ;;
        verify) "$python" - "$out/verify/verify.json" 2>/dev/null <<'PYTHON' ;;
import json, sys

with open(sys.argv[1]) as file:
    found = json.load(file)
reached = f"{found['reached']} of {found['planned']} rows x tables"
print(f"{found['cases']} cases, {len(found['failed'])} failed, {reached}")
PYTHON
        *) grep -v '^ *$' "$2" | tail -n 1 ;;
    esac || true
}

# step NAME SECONDS LINES FUNCTION [ARGUMENT...]: run it for so long at most, show its last lines.
step() {
    local name=$1 seconds=$2 lines=$3 status=0 began=$SECONDS
    shift 3
    if [[ -n $wanted && " $wanted " != *" $name "* ]]; then return; fi
    if ((limit - SECONDS < seconds)); then seconds=$((limit - SECONDS)); fi
    if ((seconds < 10)); then
        failed=1
        summary+=("$(printf '%-10s %-8s %5d  %s' "$name" "NO TIME" 0 "the steps before it took all of it")")
        return
    fi
    local log=$scratch/$name.log result=passed
    printf '\n==> %s: at %d s, for %d s at most\n' "$name" "$SECONDS" "$seconds"
    timeout --kill-after=5 "$seconds" bash -euo pipefail -c '"$@"' step "$@" >"$log" 2>&1 || status=$?
    { printf '\n==> %s (exit code %d)\n' "$name" "$status"; cat "$log"; } >>"$out/log.txt"
    if ((status)); then
        failed=1 result=FAILED lines=40
        if ((status == 124 || status == 137)); then result="TOO LONG"; fi
    elif grep -q '^left out:' "$log"; then
        result="left out"
    fi
    tail -n "$lines" "$log"
    summary+=("$(printf '%-10s %-8s %5d  %s' "$name" "$result" $((SECONDS - began)) "$(figure "$name" "$log")")")
}

step build 150 5 build
step tests 150 3 tests
step memcheck 45 2 sanitizer memcheck
if [[ -z $dry ]]; then # the emulator's run is the same for all three
    step racecheck 45 2 sanitizer racecheck
    step synccheck 45 2 sanitizer synccheck
fi
step verify 45 5 verify
step step 45 20 train
step kernels "$limit" 100 kernels $((limit - SECONDS > 40 ? limit - SECONDS - 25 : 15))

{
    printf '\n%-10s %-8s %5s  %s\n' step result s figures
    printf '%s\n' "${summary[@]}"
    printf '%s in %d s; log.txt and the figures as JSON are in %s\n' \
        "$( ((failed)) && echo FAILED || echo passed)" "$SECONDS" "$out"
} | tee "$out/summary.txt"
exit "$failed"
