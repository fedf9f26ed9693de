#!/bin/sh
# run.sh - fuzzes every parser with libFuzzer under the address and undefined sanitizers (clang).
#
#   tests/fuzz/run.sh [SECONDS [NAME…]]       default: 10 seconds each, all of fuzz_*.c
#   FUZZ_RUNS=10000 tests/fuzz/run.sh …       at most so many executions each
#   tests/fuzz/run.sh --build                 only builds them (FUZZ_BUILT=yes: they are)
#   tests/fuzz/long.py                        the long form: ten million executions each, in pieces that are resumed
#
# Starts from corpora/<name> (committed, small) and keeps what it finds new in build-fuzz/corpus/<name>. An input that
# fails is left in build-fuzz/findings; it belongs into corpora/<name> together with the fix.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
build() { CC=clang TARGET=fuzz_programs deploy/build.sh build-fuzz -DBANYAN_FUZZ=ON -DSANITIZE=fuzzer-no-link,address,undefined; }
if [ "${1:-}" = --build ]; then build; exit; fi
seconds=${1:-10}
[ $# = 0 ] || shift
case $seconds in *[!0-9]* | '') printf 'fuzz: %s is no number of seconds\n' "$seconds" >&2; exit 2 ;; esac
command -v clang >/dev/null || { echo "fuzz: clang is needed; run deploy/setup.sh --tests" >&2; exit 1; }

[ "${FUZZ_BUILT:-no}" = yes ] || build
[ $# != 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_\(.*\)\.c$/\1/')
mkdir -p build-fuzz/findings
failed=0
for name in "$@"; do
    grown=build-fuzz/corpus/$name seeds=tests/fuzz/corpora/$name dict=tests/fuzz/dicts/$name.dict log=build-fuzz/$name.log
    mkdir -p "$grown"
    most=65536 # of the others' longer inputs, most are the same again, slower
    [ "$name" != core ] || most=4096 # some fifty frames
    [ "$name" != pattern ] || most=1024
    # Without entropic: its bookkeeping was 70 % of the time of a fuzzer whose executions have many features (core).
    set -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len="$most" -entropic=0 \
        -artifact_prefix=build-fuzz/findings/"$name"-
    [ -z "${FUZZ_RUNS:-}" ] || set -- "$@" -runs="$FUZZ_RUNS"
    [ ! -f "$dict" ] || set -- "$@" -dict="$dict"
    # Without the stacks of allocations, which a finding run again alone has: a tenth of the time, and a small quarantine.
    ASAN_OPTIONS=malloc_context_size=0:quarantine_size_mb=16 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        build-fuzz/fuzz/fuzz_"$name" "$@" "$grown" "$seeds" >"$log" 2>&1 && rc=0 || rc=$?
    runs=$(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log")
    if [ $rc = 0 ]; then
        printf 'fuzz: %-16s %s runs, nothing found\n' "$name" "${runs:-?}"
    else
        tail -n 40 "$log" >&2
        printf 'fuzz: %-16s failed; the input is in build-fuzz/findings, the log is %s\n' "$name" "$log"
        failed=1
    fi
done
exit $failed
