#!/bin/sh
# Finds a Chromium for the tests of the report, or installs one. Never fails: without one those
# tests are skipped and say so (and fail where CI=true). Prints what happened.
#
#   tools/ensure_chromium.sh [python of the environment that has playwright]
set -u
python="${1:-python}"

found() {
    if [ -n "${CLIPDRIFT_CHROMIUM:-}" ]; then
        [ -x "$CLIPDRIFT_CHROMIUM" ] && echo "$CLIPDRIFT_CHROMIUM" && return 0
        echo "CLIPDRIFT_CHROMIUM=$CLIPDRIFT_CHROMIUM is no program" >&2
        return 1
    fi
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" && return 0
    done
    "$python" - <<'PYTHON' 2>/dev/null
import os
import sys

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    path = playwright.chromium.executable_path
print(path)
sys.exit(0 if os.path.exists(path) else 1)
PYTHON
}

if path=$(found); then
    echo "Chromium for the report's tests: $path"
    exit 0
fi

echo "No Chromium found; installing one for the report's tests."
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    how="apt-get install chromium"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1
else
    how="python -m playwright install chromium"
    "$python" -m playwright install chromium >/dev/null 2>&1
fi

if path=$(found); then
    echo "Installed by '$how': $path"
else
    echo "'$how' did not give one. The browser tests will be skipped, or fail where CI=true."
fi
exit 0
