#!/bin/bash
# Runs a command and prints how long it took: scripts/timed.sh NAME COMMAND…
set -euo pipefail
name=$1
shift
echo "== $name"
"$@"
echo "== $name: $SECONDS s"
