#!/usr/bin/env bash
# Spoken phrases synthesised on the spot: about two hours of training audio, no download.
# Made for two CPU cores and about an hour; a GPU is used where there is one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./ofa.sh --train_set train --valid_set valid --test_sets "test test_spell" \
    --nbpe 200 --s2s_from_ctc true \
    --s2s_adaptive_configs conf/train_asr_s2s_adaptive.yaml \
    --inference_lams "0 0.43 0.643 0.77 0.857 1" --s2s_inference_lams "0 0.857" \
    "$@"
