#!/bin/sh
# Installs open_clip for the tests that compare with it, into a folder of its own beside the
# environment: it needs torchvision, which does not load beside a torch for CPUs, and transformers
# would import it wherever it is found. `tools/open_clip_stub.py` tells how it is loaded.
#
#   tools/ensure_open_clip.sh [python of the environment]
set -eu
python="${1:-python}"
pins="open_clip_torch==3.3.0 timm==1.0.31 torchvision==0.28.0 ftfy==6.3.1 wcwidth==0.9.4"
folder=$("$python" -c "import sys; print(sys.prefix)")/open-clip

if [ "$(cat "$folder/pins" 2>/dev/null)" = "$pins" ]; then
    echo "open_clip for the tests: $folder"
    exit 0
fi
rm -rf "$folder"
# shellcheck disable=SC2086  # one argument a pin
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder" $pins
echo "$pins" >"$folder/pins"
echo "Installed: $folder"
