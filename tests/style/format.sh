#!/bin/sh
# format.sh - does every C file look as .clang-format has it? The remedy is clang-format -i on the files it names.
set -eu
cd "$(dirname "$0")/../.."
bad=$({ git -c safe.directory='*' ls-files -co --exclude-standard 2>/dev/null || find . -path './build*' -prune -o -type f -print; } |
    grep '\.[ch]$' | xargs clang-format --dry-run 2>&1 | sed -n 's/^\([^:]*\):.*warning.*/\1/p' | sort -u)
[ -z "$bad" ] || { printf 'run clang-format -i on\n%s\n' "$bad"; exit 1; }
