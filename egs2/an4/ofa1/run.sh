#!/usr/bin/env bash
# CMU AN4: under an hour of spelled names, addresses and numbers. Made for two CPU cores;
# a GPU is used where there is one.
#
# Its audio is little for pre-training; more, without transcripts, is given as folders in
# LibriSpeech's layout:
#   ./run.sh --data_dir /corpora/an4 --ssl_extra_dirs "/corpora/LibriSpeech/dev-clean"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./ofa.sh --train_set train --valid_set valid --test_sets test \
    --speed_perturb_factors "0.9 1.0 1.1" --nbpe 100 --s2s_from_ctc true "$@"
