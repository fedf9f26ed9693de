#!/bin/sh
# run.sh - set up, build, test. Ends with what did not run here, and one line: N passed, N failed.
#
#   tests/run.sh             unit tests, the parsers under sanitizers, end to end with the real model
#   tests/run.sh --long      and what takes longer (soak, long fuzzing, property tests in full)
#   tests/run.sh --strict    and an unsteady test is a failed one
#
# Up to three tests of a section that fail are run once more, alone: those that pass then are named in the end as
# unsteady. They are defects, of the test or of the product, told apart from what a change has broken.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
long=no
strict=no
for word in "$@"; do
    case $word in
        --long) long=yes ;;
        --strict) strict=yes ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
export BANYAN_TEST_LONG=$long

passed=0
failed=0
n_not_here=0
not_here=""
n_unsteady=0
unsteady=""
alone_max=3

# absent N WHY: N things that this machine cannot show.
absent() {
    n_not_here=$((n_not_here + $1))
    not_here="$not_here${not_here:+; }$2"
}

# steady_again N NAMES COMMAND…: those N, too many not, failed: does COMMAND, which runs just them, pass? Then they are unsteady.
steady_again() {
    n=$1 names=$2
    shift 2
    [ $strict = no ] && [ "$n" -le $alone_max ] && [ -n "$names" ] || return 1
    "$@" >"$log.again" 2>&1 || return 1
    n_unsteady=$((n_unsteady + n))
    unsteady="$unsteady${unsteady:+ }$names"
}

section() {
    printf '\n== %s\n' "$1"
    began=$(date +%s)
}
took() { printf -- '-- %d s\n' $(($(date +%s) - began)); }

failed_of_ctest() { sed -n 's/^[[:space:]]*[0-9][0-9]* - \(.*\) (\(Failed\|Timeout\|SEGFAULT\|ILLEGAL\|Subprocess aborted\))$/\1/p' "$1" | paste -s -d ' ' -; }
# Whole functions: a case's name may hold blanks.
failed_of_pytest() { sed -n 's/^\(FAILED\|ERROR\) \([^ []*\).*/\2/p' "$1" | sort -u | paste -s -d ' ' -; }

# tally DIR NAME ctest-arguments…: runs ctest in DIR and adds its counts.
tally() {
    dir=$1 name=$2
    shift 2
    section "$name"
    log=$dir/$(printf '%s' "$name" | tr -c 'a-z0-9\n' '-').log
    ctest --test-dir "$dir" --output-on-failure --no-tests=error -j "$(nproc)" "$@" >"$log" 2>&1 && rc=0 || rc=$?
    total=$(sed -n 's/.* out of \([0-9][0-9]*\)$/\1/p' "$log" | tail -n 1)
    lost=$(sed -n 's/.*, \([0-9][0-9]*\) tests\{0,1\} failed out of .*/\1/p' "$log" | tail -n 1)
    [ -n "$total" ] || { total=1; lost=1; }
    [ $rc = 0 ] || [ "${lost:-0}" != 0 ] || lost=1
    skipped=$(grep -c '(Skipped)$' "$log") || true
    [ "$skipped" = 0 ] || absent "$skipped" "$(sed -n 's/.* - \(.*\) (Skipped)$/\1/p' "$log" | paste -s -d ' ' -)"
    if [ "${lost:-0}" = 0 ]; then grep ' tests passed' "$log"; else cat "$log"; fi
    if [ "${lost:-0}" != 0 ] && steady_again "$lost" "$(failed_of_ctest "$log")" \
        ctest --test-dir "$dir" --rerun-failed --no-tests=error; then lost=0; fi
    passed=$((passed + total - skipped - ${lost:-0}))
    failed=$((failed + ${lost:-0}))
    took
}

# black_box FOLDER [VENV [pytest-arguments…]]: pytest over it, if it holds test_*.py; adds its counts.
black_box() {
    tests=$1 venv=${2:-.venv}
    shift
    [ $# = 0 ] || shift
    ls "$tests"/test_*.py >/dev/null 2>&1 || return 0
    section "$tests${venv#.venv}"
    log=build/$(basename "$tests")${venv#.venv}.txt
    "$venv/bin/python" -m pytest "$tests" "$@" -q -rfEs --timeout=300 -p no:cacheprovider >"$log" 2>&1 && rc=0 || rc=$?
    if [ $rc = 0 ]; then tail -n 1 "$log"; else cat "$log"; fi
    good=$(tail -n 1 "$log" | sed -n 's/.*\b\([0-9][0-9]*\) passed.*/\1/p')
    bad=$(tail -n 1 "$log" | sed -n 's/.*\b\([0-9][0-9]*\) failed.*/\1/p')
    broken=$(tail -n 1 "$log" | sed -n 's/.*\b\([0-9][0-9]*\) error.*/\1/p')
    skipped=$(tail -n 1 "$log" | sed -n 's/.*\b\([0-9][0-9]*\) skipped.*/\1/p')
    lost=$((${bad:-0} + ${broken:-0}))
    [ $rc = 0 ] || [ $lost != 0 ] || lost=1
    if [ $lost != 0 ] && steady_again $lost "$(failed_of_pytest "$log")" \
        "$venv/bin/python" -m pytest $(failed_of_pytest "$log") -q --timeout=300 -p no:cacheprovider; then
        good=$((${good:-0} + lost))
        lost=0
    fi
    [ -z "$skipped" ] || absent "$skipped" "$(sed -n 's/^SKIPPED \[[0-9]*\] [^ ]*: //p' "$log" | sort -u | paste -s -d ';' -)"
    passed=$((passed + ${good:-0}))
    failed=$((failed + lost))
    took
}

# fuzzing SECONDS: each fuzzer for so long; one that finds something is a failure.
fuzzing() {
    section "fuzzing, $1 s each"
    log=build/fuzz.txt
    tests/fuzz/run.sh "$1" >"$log" 2>&1 && rc=0 || rc=$?
    good=$(grep -c '^fuzz: .* nothing found$' "$log") || true
    lost=$(grep -c '^fuzz: .* failed;' "$log") || true
    [ $rc = 0 ] || [ "$lost" != 0 ] || lost=1
    passed=$((passed + good))
    failed=$((failed + lost))
    if [ "$lost" = 0 ]; then printf '%d fuzzers found nothing\n' "$good"; else cat "$log"; fi
    took
}

section "set-up and build"
deploy/setup.sh --tests --transformers
werror=-DBANYAN_WERROR=OFF
[ -z "${CI:-}" ] || werror=-DBANYAN_WERROR=ON
deploy/build.sh build "$werror"
deploy/build.sh build-asan -DSANITIZE=address,undefined
took

slow=slow
[ $long = no ] || slow=nothing-is-too-slow
tally build "unit tests" -LE "$slow"
[ $long = yes ] || tally build "simulation of 10,000 seeds" -R "^simulate_10000$"
tally build-asan "under sanitizers: address, undefined" -LE "$slow|style|model"
black_box tests/protocol
black_box tests/e2e
fuzz_s=3
[ $long = no ] || fuzz_s=60
fuzzing $fuzz_s
black_box tests/hf .venv-transformers
black_box tests/hf .venv-transformers4 -m both_lines

grep -q avx512_vnni /proc/cpuinfo || absent 1 "AVX-512 kernels (this CPU has no AVX512-VNNI)"
clang-format --version | grep -q 'version 14\.' || absent 1 "formatting (it needs clang-format 14)"
[ -e /dev/nvidiactl ] || absent 1 "the CUDA kernels on a GPU (there is none; they ran emulated)"
[ -d ../shared/data ] || absent 1 "tests on real models' tokenizers and on reference logits (no ../shared/data)"
[ $n_unsteady = 0 ] || printf '\nunsteady: %d (%s)' "$n_unsteady" "$unsteady"
printf '\nnot here: %d (%s)\n%d passed, %d failed\n' "$n_not_here" "$not_here" "$passed" "$failed"
[ "$failed" = 0 ]
