#!/bin/sh
# docs.sh PRINT_TABLES [--write] - are the pages made from tables what the tables say? `make docs` writes them.
set -eu
cd "$(dirname "$0")/../.."
stale=0
page() {
    if [ "$3" = --write ]; then
        "$1" "$2" >"$4"
    elif ! "$1" "$2" | diff -u "$4" -; then
        printf '%s is stale: run make docs, and commit it with the table\n' "$4"
        stale=1
    fi
}
page "$1" options "${2:-}" deploy/docs/options.md
page "$1" templates "${2:-}" deploy/docs/chat_templates.md
page "$1" metrics "${2:-}" deploy/docs/metrics.md
page "$1" paths "${2:-}" deploy/docs/paths.md
page "$1" openapi "${2:-}" deploy/docs/openapi.json
page "$1" messages "${2:-}" proto/MESSAGES.md
exit $stale
