#!/bin/sh
# check.sh - everything that only a GPU can show, in one go, without network; `make gpu-check` runs it. Needs nvcc, a C++
# compiler and the libraries of deploy/setup.sh; the kernel part (gpu_ops, ceilings) needs none of libzmq.
#
#   tests/gpu/check.sh [MODEL_DIR]      a model for the last part; default: the tiny ones of ../shared/data
#
# What it finds goes to tests/bench/results/gpu-<name>.md: ceilings of this card (copy, read, product), every op against the
# CPU, compute-sanitizer over the same, whole models against their goldens, ops in the shapes of an 8B model, two ranks on this
# one card against one, greedy ids against transformers, cuDNN's attention, graphs on and off. A part whose tool is missing
# says "not here" and is no failure. Ends with the number of parts that failed. Nothing in it has run on a GPU so far: the
# first run is also the test of this script.
set -u
cd "$(dirname "$0")/../.."
command -v nvidia-smi >/dev/null || { echo "gpu-check: no nvidia-smi here: no GPU, or no driver" >&2; exit 1; }
name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1 | tr -c 'A-Za-z0-9\n' '-' | tr -s '-')
[ -n "$name" ] || { echo "gpu-check: nvidia-smi names no GPU" >&2; exit 1; }
build=build-gpu
out=tests/bench/results/gpu-$name.md
failed=0

part() { # part TITLE COMMAND…: its output under a title, and whether it failed
    title=$1
    shift
    printf '\n## %s\n```\n' "$title"
    "$@" 2>&1 || { failed=$((failed + 1)); printf 'FAILED (status above; command: %s)\n' "$*"; }
    printf '```\n'
}

tests_of() { # the test programs, on the device instead of the emulator
    for program in "$build"/tests/gpu_*; do
        [ -x "$program" ] && [ ! -d "$program" ] || continue
        echo "== $program"
        "$@" "$program" || return 1
    done
}

measure() { # measure MODEL FLAGS…: steps of decode and prompts
    model=$1
    shift
    "$build/bin/banyan-gpu-worker" --device cuda --model-path "$model" "$@" --max-running-requests 256 \
        --one-batch 1x128x64,8x128x64,64x128x32,1x2048x1,4x2048x1
}

# The Python that has torch and transformers, if one has.
python=python3
for other in .venv-transformers/bin/python .venv/bin/python python3; do
    command -v "$other" >/dev/null && "$other" -c 'import torch, transformers' 2>/dev/null && python=$other && break
done

server() { # server PART …
    if [ -x "$build/bin/banyan" ]; then
        BANYAN_BUILD=$PWD/$build "$python" tests/gpu/check_server.py "$@"
    else
        echo "not here: $build/bin/banyan, which needs libzmq and the other libraries of deploy/setup.sh"
    fi
}

sanitized() {
    if command -v compute-sanitizer >/dev/null; then
        tests_of compute-sanitizer --error-exitcode 9 --leak-check full
    else
        echo "not here: compute-sanitizer"
    fi
}

{
    printf '# %s\n\n' "$name"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
    part "Build" deploy/build.sh "$build" -DBANYAN_CUDA=ON -DBANYAN_CUDA_RELEASE=ON -DBANYAN_GPU_TESTS=ON
    part "Ceilings of this card" "$build/bench/bench_gpu"
    part "Every op against the CPU" tests_of env
    part "The same under compute-sanitizer" sanitized
    part "Ops in the shapes of an 8B model" "$build/bench/bench_ops"
    part "Attention by cuDNN" server attention
    part "Greedy ids against transformers" server ids 1b
    for model in ${1:-../shared/data/tiny/llama-gqa}; do
        part "Two NCCL ranks on this card against one, $model" server ranks "$model"
        part "Steps of $model" measure "$model"
        part "The same without graphs" measure "$model" --disable-cuda-graph
        part "The same, deterministic" measure "$model" --deterministic
    done
    printf '\n%s parts failed\n' "$failed"
} >"$out"
cat "$out"
exit "$(grep -c '^FAILED' "$out")"
