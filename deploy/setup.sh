#!/bin/sh
# setup.sh - brings a fresh Debian 12 machine to where Banyan builds, runs and passes its tests.
#
#   deploy/setup.sh                   what building and serving need: compiler, libraries, pip (for the default model)
#   deploy/setup.sh --transformers    and torch and transformers in .venv-transformers, for models that the native engine
#                                     does not know (without a GPU the CPU build of torch, where your package index has
#                                     one; where there is nvidia-smi, or with --cuda, the one with CUDA, several GB)
#   deploy/setup.sh --cuda            and a CUDA compiler, cuBLAS and NCCL, as PyPI wheels (1 GB) in ~/.cache/banyan/cuda, where no
#                                     nvcc is installed; cmake finds them there (-DBANYAN_CUDA=AUTO)
#   deploy/setup.sh --tests           and what the tests need: cmocka, clang, a Python venv in .venv; with --transformers
#                                     also the older line of transformers, in .venv-transformers4
#
# Says what it does, does only what is missing, and can be run again at any time. Works as root or with sudo.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

build_packages="gcc libc6-dev make cmake ninja-build pkg-config ca-certificates python3 python3-pip \
libzmq3-dev libsodium-dev libmsgpack-dev libuv1-dev libhttp-parser-dev libcjson-dev \
libpcre2-dev libutf8proc-dev libxxhash-dev libcurl4-openssl-dev libyaml-dev"
test_packages="git g++ libcmocka-dev clang libclang-rt-dev clang-format procps haproxy"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0"; }

want_tests=no
want_transformers=no
want_cuda=no
for word in "$@"; do
    case $word in
        --tests) want_tests=yes ;;
        --transformers) want_transformers=yes ;;
        --cuda) want_cuda=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown option '$word'" ;;
    esac
done

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_of() {
    for package in "$@"; do
        installed "$package" || printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# One at a time when the whole list fails, so that the message names the package that cannot be had.
install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >"$log" 2>&1 && return
    for package in "$@"; do
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >"$log" 2>&1 ||
            { tail -n 5 "$log" >&2; die "package '$package' could not be installed (above: what apt-get said)"; }
    done
}

packages=$build_packages
[ $want_tests = no ] || packages="$packages $test_packages"
[ $want_cuda = no ] || packages="$packages g++" # nvcc's host compiler
[ $want_tests$want_transformers = nono ] || packages="$packages python3-venv"
command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    die "this script knows Debian's apt-get only; on another system install the counterparts of: $packages"

# shellcheck disable=SC2086 # a list of words
missing=$(missing_of $packages)
if [ -n "$missing" ]; then
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
        die "these packages must be installed by root, and there is no sudo here; as root: apt-get install $missing"
    say "installing Debian packages: $missing"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    as_root apt-get update -qq >"$log" 2>&1 || { tail -n 5 "$log" >&2; say "apt-get update failed; trying with the lists at hand"; }
    # shellcheck disable=SC2086
    install_packages $missing
else
    say "all Debian packages are there"
fi

# venv FOLDER WHAT: an empty Python venv, made anew only when Python changed.
venv() {
    python_is=$(python3 -c 'import sys; print(sys.version)')
    if [ "$(cat "$root/$1/banyan-python" 2>/dev/null)" = "$python_is" ]; then
        say "the Python venv $1 is there ($2)"
        return
    fi
    say "making the Python venv $1 ($2)"
    rm -rf "${root:?}/$1"
    python3 -m venv "$root/$1" || die "python3 -m venv failed; is the package python3-venv installed for $(command -v python3)?"
    printf '%s\n' "$python_is" >"$root/$1/banyan-python"
}

# fill FOLDER LIST [--no-deps]: installs a list of requirements into a venv, unless just that list was installed before.
fill() {
    done_list=$root/$1/banyan-$(printf '%s' "$2" | tr / -)
    if cmp -s "$root/$2" "$done_list"; then return; fi
    say "installing $2 into $1"
    # shellcheck disable=SC2086 # no word when there is none
    "$root/$1/bin/pip" install -q -q --disable-pip-version-check ${3:-} -r "$root/$2" ||
        die "pip could not install $2 (above: which package); see that pip reaches its index and that the disk has room, then run this again"
    cp "$root/$2" "$done_list"
}

# The build of torch for CPUs alone is a tenth of the size of the one with CUDA; whether the index that pip is set up for
# has it, pip finds out. If not, the list of requirements brings the build that the index has. Who has a GPU needs the one
# with CUDA, also where the other was installed before.
torch_for() {
    pin=$(sed -n 's/^torch==//p' "$root/gpu_worker/hf/requirements.txt")
    build=$("$root/$1/bin/python" -c 'import torch; print(torch.version.cuda or "cpu")' 2>/dev/null) || build=none
    if [ $want_cuda = no ] && [ -z "$(command -v nvidia-smi)" ]; then
        [ "$build" = none ] || return 0
        "$root/$1/bin/pip" install -q -q --disable-pip-version-check "torch==$pin+cpu" >/dev/null 2>&1 ||
            say "the package index has no torch for CPUs alone; the build with CUDA comes (several GB)"
    elif [ "$build" = cpu ] || [ "$build" = none ]; then
        say "installing torch with CUDA into $1 (several GB)"
        [ "$build" = none ] || "$root/$1/bin/pip" uninstall -q -q -y torch
        "$root/$1/bin/pip" install -q -q --disable-pip-version-check "torch==$pin" ||
            die "pip could not install torch (above: why); see that pip reaches its index and that the disk has room, then run this again"
        "$root/$1/bin/python" -c 'import sys, torch; sys.exit(not torch.version.cuda)' ||
            say "the package index has torch for CPUs alone: until pip is set up for one with CUDA builds, the Transformers worker will not take --device cuda"
    fi
}

# see_too FOLDER OTHER: Python in FOLDER finds the packages of OTHER behind its own.
see_too() {
    site=$("$root/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$root/$2/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/shared.pth"
}

if [ $want_tests = yes ]; then
    venv .venv "for the tests"
    fill .venv tests/requirements.txt
    fill .venv tests/requirements-alone.txt --no-deps # SGLang's clients, without the server's torch
fi
if [ $want_transformers = yes ]; then
    venv .venv-transformers "torch and transformers"
    torch_for .venv-transformers
    fill .venv-transformers gpu_worker/hf/requirements.txt
fi
if [ $want_transformers = yes ] && [ $want_tests = yes ]; then
    fill .venv-transformers tests/hf/requirements.txt
    venv .venv-transformers4 "transformers 4, for the tests"
    see_too .venv-transformers4 .venv-transformers
    fill .venv-transformers4 tests/hf/requirements-4.txt
fi
# The versions that torch 2.11 asks for: one driver serves both.
cuda_libraries="nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9"
cuda_wheels="nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 $cuda_libraries"
if [ $want_cuda = yes ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/banyan/cuda
    nvcc=$(command -v nvcc || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; }) || nvcc=
    major=13
    if [ -n "$nvcc" ]; then
        say "a CUDA compiler is installed; only its libraries are looked for in $cache"
        major=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\)\..*/\1/p')
        cuda_wheels=$cuda_libraries
        [ "$major" != 12 ] || cuda_wheels="nvidia-cublas-cu12==12.9.1.4 nvidia-nccl-cu12==2.28.9"
    fi
    driver=$(nvidia-smi 2>/dev/null | sed -n 's/.*CUDA [A-Z ]*Version: *\([0-9]*\)\..*/\1/p')
    [ "${driver:-$major}" -ge "$major" ] ||
        say "the driver here knows CUDA $driver, and what is built by CUDA $major will not run: update the driver, or install a CUDA $driver compiler first"
    if [ "$(cat "$cache/wheels" 2>/dev/null)" != "$cuda_wheels" ]; then
        say "downloading into $cache: $cuda_wheels"
        # shellcheck disable=SC2086
        python3 -m pip install -q -q --disable-pip-version-check --no-deps --upgrade --target "$cache" $cuda_wheels ||
            die "pip could not download the CUDA wheels (above: which); see that pip reaches its index, then run this again"
        # nvcc links from lib64, and CMake looks for a runtime without a version in its name; the wheels have neither.
        if [ -d "$cache/nvidia/cu13/nvvm" ]; then
            ln -sfn lib "$cache/nvidia/cu13/lib64"
            ln -sf libcudart.so.13 "$cache/nvidia/cu13/lib/libcudart.so"
        fi
        printf '%s' "$cuda_wheels" >"$cache/wheels"
    else
        say "the CUDA wheels are in $cache"
    fi
fi
say "done"
