#!/bin/sh
# run.sh - set up, build, serve: SmolLM2-135M-Instruct on port 30000 unless the options say otherwise.
#
#   deploy/run.sh [options of banyan serve]        deploy/run.sh --model-path DIR --port 8080
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
"$root/deploy/setup.sh"
TARGET=programs "$root/deploy/build.sh"
exec "$root/build/bin/banyan" serve "$@"
