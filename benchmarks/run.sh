#!/usr/bin/env bash
# All benchmarks that need no data; bench asr needs a model (README.md). Options are handed
# on, e.g. --device cuda --processes 5. Nothing else should run meanwhile. About an hour on
# two cores.
set -euo pipefail

cd "$(dirname "$0")/.."
bench=("${PYTHON:-python}" -m espnet_ofa.bin.bench)

"${bench[@]}" operator "$@"
if [[ " $* " == *" cuda "* ]]; then
    for mode in eager graphs; do
        for batch in 1 16; do
            "${bench[@]}" upstream --dtype bf16 --batch "${batch}" --mode "${mode}" "$@"
        done
    done
    "${bench[@]}" upstream --dtype bf16 --layers 2 "$@"
else
    for dtype in fp32 int8; do
        for layers in 12 2; do
            "${bench[@]}" upstream --dtype "${dtype}" --layers "${layers}" "$@"
        done
    done
    "${bench[@]}" onnx "$@"
fi
"${bench[@]}" upstream --batch 8 --mixed --rounds 2 "$@"
"${bench[@]}" upstream --layers 12 --name growth-12-layers --processes 1 \
    --growth 4 8 15 30 60 "$@"
"${bench[@]}" streaming "$@"
"${bench[@]}" train --rounds 2 --processes 1 "$@"
