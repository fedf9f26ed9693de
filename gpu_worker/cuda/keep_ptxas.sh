#!/bin/sh
# keep_ptxas.sh COMPILER … -o FILE.o …: runs the compiler; what ptxas says of registers and spills goes to FILE.o.ptxas, all
# else that it says is passed on. tests/cuda/check_ptxas.py reads it.
set -u
out=/dev/null before=
for word in "$@"; do
    [ "$before" != -o ] || out=$word.ptxas
    before=$word
done
"$@" 2>"$out.all"
rc=$?
grep -E '^ptxas info|^ +[0-9]+ bytes' "$out.all" >"$out"
grep -vE '^ptxas info|^ +[0-9]+ bytes' "$out.all" >&2
rm -f "$out.all"
exit $rc
