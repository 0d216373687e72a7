#!/bin/sh
# Finds SLURM and munge for the tests of the SLURM executor, or installs them. Never fails: without
# them those tests are skipped and say so (and fail where CI=true). Starts nothing. Prints what
# happened.
#
#   tools/ensure_slurm.sh
set -u
PATH="$PATH:/usr/sbin:/sbin"

missing() {
    for name in slurmctld slurmd munged sbatch squeue scontrol; do
        command -v "$name" >/dev/null || echo "$name"
    done
}

if [ -z "$(missing)" ]; then
    echo "SLURM for the executor's tests: $(slurmctld -V)"
    exit 0
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "No SLURM found; installing Debian's for the executor's tests."
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1
fi

if [ -z "$(missing)" ]; then
    echo "Installed: $(slurmctld -V)"
else
    echo "Not found: $(missing | tr '\n' ' ')- the tests of the SLURM executor will be skipped, or" \
        "fail where CI=true. As root on Debian: apt-get install slurm-wlm munge"
fi
exit 0
