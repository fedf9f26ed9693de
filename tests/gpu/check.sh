#!/bin/sh
# check.sh - everything that only a GPU can show, in one go, without network; `make gpu-check` runs it. Needs nvcc, a C++
# compiler, cmocka and the libraries of deploy/setup.sh. Without libzmq it is the kernels alone (ceilings, ops, attention, FP8), and of
# the libraries cJSON, libyaml and xxHash.
#
#   tests/gpu/check.sh [MODEL_DIR]      a model for the last part; default: the tiny ones of ../shared/data
#
# What it finds goes to tests/bench/results/gpu-<name>.md: ceilings of this card (copy, read, product), every op against the
# CPU, products in FP8 and attention by warpgroups where the card has them, compute-sanitizer over the same, whole models
# against their goldens, ops in the shapes of an 8B model, two ranks on this one card against one, greedy ids against
# transformers, the Transformers worker on the card against on the CPU, cuDNN's attention, graphs on and off. A part whose
# tool is missing says "not here" and is no failure. Each part has a deadline, and all that is measured has 10 minutes
# (BANYAN_GPU_SECONDS):
# what is cut says CUT, and so does the last line; a part that is cut has failed. The build has its own 10 minutes: the
# ceiling is of what needs the card.
# Ways that must be proven on a card (gpu_worker/cuda/proven.h) are written down where their part passed. Ends with the number
# of parts that failed; where the build fails, or CUDA sees no device, nothing else is tried. Nothing in it has run on a GPU so far:
# the first run is also the test of this script.
set -u
cd "$(dirname "$0")/../.."
build=build-gpu
seconds_all=${BANYAN_GPU_SECONDS:-600}
end=0 # second at which all is to be done; 0: not set yet
cut=

part() { # part SECONDS TITLE COMMAND…: its output under a title, whether it failed, whether it was cut; 77: what it needs is not here
    seconds=$1 title=$2
    shift 2
    printf '\n## %s\n```\n' "$title"
    left=$seconds
    if [ "$end" -gt 0 ]; then
        left=$((end - $(date +%s)))
        [ "$left" -le "$seconds" ] || left=$seconds
    fi
    rc=124
    if [ "$left" -gt 0 ]; then
        began=$(date +%s)
        timeout -k 10 "$left" tests/gpu/check.sh --part "$@" 2>&1
        rc=$?
        printf '(%s of %s s)\n' "$(($(date +%s) - began))" "$left"
    fi
    case $rc in
        0 | 77) ;;
        124 | 137)
            cut="$cut; $title"
            printf 'FAILED: CUT after %s s (command: %s)\n' "$((left > 0 ? left : 0))" "$*"
            ;;
        *) printf 'FAILED (status %s; command: %s)\n' "$rc" "$*" ;;
    esac
    printf '```\n'
    last=$rc
}

proven() { # proven WAY: the part before this one shows it right on this card
    [ "$last" -eq 0 ] || return 0
    version=$(sed -n "s/^$1 //p" "$build/gpu_worker/cuda/proven-ways")
    mkdir -p "$cache" && printf '%s %s %s\n' "$1" "$version" "$card" >>"$cache/cuda-proven"
}

plain() { # plain COMMAND…: by no way that must be proven first
    export BANYAN_TEST_CUDA_WAYS=none
    "$@"
}

overlapped() { # overlapped PROGRAM…: with kernels that come up early, whose every sum must stay what it is
    for program; do
        BANYAN_TEST_CUDA_WAYS=overlap "$build/tests/$program" || return 1
    done
}

not_here() {
    echo "not here: $*"
    return 77
}

measure() { # measure MODEL FLAGS…: steps of decode and prompts
    model=$1
    shift
    [ -e "$model" ] || { not_here "$model"; return; }
    [ -x "$build/bin/banyan-gpu-worker" ] || { not_here "$build/bin/banyan-gpu-worker"; return; }
    "$build/bin/banyan-gpu-worker" --device cuda --model-path "$model" "$@" --max-running-requests 256 \
        --one-batch 1x128x64,8x128x64,64x128x32,1x2048x1,4x2048x1
}

server() { # server PART …: cuDNN's alone does without a server
    if [ -x "$build/bin/banyan" ] || [ "$1" = attention ]; then
        BANYAN_BUILD=$PWD/$build "$GPU_PYTHON" tests/gpu/check_server.py "$@"
    else
        not_here "$build/bin/banyan, which needs libzmq and the other libraries of deploy/setup.sh"
    fi
}

ranks() { # ranks MODEL …
    [ -e "$1" ] || { not_here "$1"; return; }
    server ranks "$@"
}

two_cards() { # sums in windows of memory, which two ranks on one card cannot have
    [ "$GPU_CARDS" -ge 2 ] || { not_here "a second card"; return; }
    BANYAN_TEST_CUDA_WAYS=windows ranks "$1" two
}

sanitized() { # sanitized PROGRAM ARGUMENT; what a call says the programs see themselves: an event that is not ready is no error
    command -v compute-sanitizer >/dev/null || { not_here compute-sanitizer; return; }
    compute-sanitizer --error-exitcode 9 --leak-check full --report-api-errors no "$@"
}

# A part is this script once more, so that a deadline ends it with all that it started.
if [ "${1:-}" = --part ]; then
    shift
    "$@"
    exit
fi

# A toolkit's programs, where nobody has named them. The report has the name that the driver gives the first card that programs see;
# all else CUDA says itself: an instance of a card (MIG) has a name of its own there, and nvidia-smi does not take one for a card.
export CUDA_DEVICE_ORDER=PCI_BUS_ID PATH="$PATH:/usr/local/cuda/bin"
command -v nvidia-smi >/dev/null || { echo "gpu-check: no nvidia-smi here: no GPU, or no driver" >&2; exit 1; }
case ${CUDA_VISIBLE_DEVICES:-MIG} in *MIG*) seen= ;; *) seen="-i $CUDA_VISIBLE_DEVICES" ;; esac
cards=$(nvidia-smi $seen --query-gpu=name --format=csv,noheader) || # it says why on stdout
    { echo "gpu-check: nvidia-smi finds no GPU: $(printf %s "$cards" | head -n 1)" >&2; exit 1; }
[ -n "$cards" ] || { echo "gpu-check: nvidia-smi names no GPU" >&2; exit 1; }
name=$(printf '%s\n' "$cards" | head -n 1 | tr -c 'A-Za-z0-9\n' '-' | tr -s '-')
cache=${BANYAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/banyan}
out=tests/bench/results/gpu-$name.md
# For the parts: the Python that has torch and transformers, if one has.
GPU_PYTHON=python3
for python in .venv-transformers/bin/python .venv/bin/python python3; do
    command -v "$python" >/dev/null && "$python" -c 'import torch, transformers' 2>/dev/null && GPU_PYTHON=$python && break
done
export GPU_PYTHON

all_parts() { # all_parts [MODEL_DIR]
    devices=$("$build/bench/bench_gpu" devices) || { printf '\nFAILED: CUDA sees no device: %s\n' "$devices"; return; }
    card=$(printf '%s\n' "$devices" | sed -n '1s/^[0-9]* //p')
    capability=$(printf '%s\n' "$devices" | sed -n '1s/ .*//p')
    GPU_CARDS=$(printf '%s\n' "$devices" | grep -cxF "$capability $card")
    export GPU_CARDS
    programs=$(cd "$build/tests" 2>/dev/null && ls -d gpu_* | grep -v -e '\.' -e gpu_fp8)
    ways= # of FP8 that such a card has
    [ "$capability" -lt 89 ] || ways=fp8
    [ "$capability" -ne 90 ] || ways="fp8 fp8-blocks"
    end=$(($(date +%s) + seconds_all))
    part 30 "Ceilings of this card" "$build/bench/bench_gpu"
    # The test programs, on the device instead of the emulator.
    for program in $programs; do
        part 60 "Against the CPU: $program" "$build/tests/$program"
    done
    for way in $ways; do
        part 60 "Products in FP8: $way" "$build/tests/gpu_fp8" "$way"
        proven "$way"
    done
    if [ "$capability" -eq 90 ]; then
        part 60 "Prompts' attention by warpgroups" "$build/tests/gpu_attention" wgmma
        proven wgmma
        part 30 "Its speed without them" plain "$build/bench/bench_ops" prompts
    fi
    if [ "$capability" -ge 90 ] && [ -x "$build/tests/gpu_models_shared" ]; then
        part 90 "Kernels that come up before the last one is done" overlapped gpu_ops gpu_experts gpu_models_shared gpu_ahead_shared
        proven overlap
    fi
    part 60 "Ops in the shapes of an 8B model" "$build/bench/bench_ops"
    part 30 "Attention by cuDNN" server attention
    part 90 "Greedy ids against transformers" server ids 1b
    for model in tiny ../shared/data/tiny/gpt-oss ../shared/data/tiny/falcon-newarch; do
        part 90 "The Transformers worker on this card against on the CPU, $model" server transformers "$model"
    done
    for model in ${1:-../shared/data/tiny/llama-gqa}; do
        part 60 "Two NCCL ranks on this card against one, $model" ranks "$model"
        part 45 "Two ranks on two cards against one, $model" two_cards "$model"
        proven windows
        part 30 "Steps of $model" measure "$model"
        part 30 "The same, one kernel after the other" plain measure "$model"
        part 30 "The same without graphs" measure "$model" --disable-cuda-graph
        part 30 "The same, deterministic" measure "$model" --deterministic
    done
    # Last: they are the slowest (few models of each kind), and take what time is left.
    for program in $programs; do
        part 150 "Under compute-sanitizer: $program" sanitized "$build/tests/$program" few
    done
    for way in $ways; do
        part 100 "Under compute-sanitizer: $way" sanitized "$build/tests/gpu_fp8" "$way"
    done
    [ "$capability" -ne 90 ] || part 100 "Under compute-sanitizer: wgmma" sanitized "$build/tests/gpu_attention" wgmma
    printf '\nCut for time: %s\n' "${cut#; }"
}

{
    printf '# %s\n\n' "$name"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
    pkg-config --exists libzmq || { export TARGET=gpu_kernels && printf '\nNo libzmq here: the kernels alone.\n'; }
    part 600 "Build" deploy/build.sh "$build" -DBANYAN_CUDA=ON -DBANYAN_CUDA_RELEASE=ON -DBANYAN_GPU_TESTS=ON -DBUILD_TESTING=OFF
    [ "$last" -ne 0 ] || all_parts "$@"
} >"$out"
failed=$(grep -c '^FAILED' "$out")
printf '%s parts failed\n' "$failed" >>"$out"
cat "$out"
exit "$failed"
