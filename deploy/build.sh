#!/bin/sh
# build.sh [DIR [cmake options]] - configures and builds into DIR (default build); the programs are in DIR/bin.
# With TARGET=NAME in the environment, that target alone.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-build}
[ $# = 0 ] || shift
cd "$root"
[ -n "$(command -v ninja)" ] && CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja} && export CMAKE_GENERATOR
log=$dir/build.log
mkdir -p "$dir"
printf 'build: into %s …\n' "$dir"
{ cmake -S . -B "$dir" "$@" && cmake --build "$dir" --parallel "$(nproc)" ${TARGET:+--target "$TARGET"}; } >"$log" 2>&1 ||
    { tail -n 40 "$log" >&2; printf 'build: failed; the whole log is %s\n' "$log" >&2; exit 1; }
printf 'build: done\n'
