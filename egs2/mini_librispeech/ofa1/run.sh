#!/usr/bin/env bash
# Mini LibriSpeech: five hours of read English. Made for one GPU, or two CPU cores and
# patience.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./ofa.sh --train_set train --valid_set valid --test_sets test \
    --speed_perturb_factors "0.9 1.0 1.1" --nbpe 300 --s2s_from_ctc true "$@"
