#!/bin/sh
# Writes requirements.lock: the versions of constraints.txt with the hashes of their files, for
#     pip install --require-hashes --no-deps --requirement requirements.lock
# Needs uv (pip install uv). torch is left out: its build and hash differ from index to index.
set -eu
cd "$(dirname "$0")/.."
grep -v -e '^#' -e '^torch==' -e '^atheris==' constraints.txt |
    uv pip compile - --no-deps --generate-hashes --universal --python-version 3.11 \
        --no-annotate --no-header --no-emit-index-url --output-file requirements.lock --quiet
