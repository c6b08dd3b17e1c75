#!/usr/bin/env bash
# LibriSpeech, train-clean-100 for pre-training and for fine-tuning. Made for one node of
# four GPUs with 24 GB or more. Folders are its own: names in them do not tell the hours.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./run.sh --local_data_opts "--hours 100" --train_set train_clean_100 --ngpu 4 \
    --datadir data_100h --dumpdir dump_100h --expdir exp_100h \
    --ssl_config conf/train_ssl_100h.yaml --asr_config conf/train_asr_ctc_100h.yaml \
    "$@"
