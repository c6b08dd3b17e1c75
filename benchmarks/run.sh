#!/usr/bin/env bash
# All benchmarks that need no data. Options are handed on, e.g. --device cuda --processes 5.
# Nothing else should run meanwhile. About an hour on two cores.
set -euo pipefail

cd "$(dirname "$0")/.."
bench=("${PYTHON:-python}" -m espnet_ofa.bin.bench)

"${bench[@]}" operator "$@"
for dtype in fp32 int8; do
    [[ ${dtype} == int8 && " $* " == *" cuda "* ]] && dtype=bf16
    for layers in 12 2; do
        "${bench[@]}" upstream --dtype "${dtype}" --layers "${layers}" "$@"
    done
    "${bench[@]}" upstream --dtype "${dtype}" --batch 8 --rounds 2 "$@"
done
"${bench[@]}" upstream --batch 8 --mixed --rounds 2 "$@"
"${bench[@]}" upstream --layers 12 --name growth-12-layers --processes 1 \
    --growth 4 8 15 30 60 "$@"
"${bench[@]}" train --rounds 2 --processes 1 "$@"
