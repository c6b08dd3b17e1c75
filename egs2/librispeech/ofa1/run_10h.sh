#!/usr/bin/env bash
# LibriSpeech, CTC fine-tuning on the ten labelled hours of Libri-light, of the upstream
# that run.sh pre-trained on 960 hours, or of another one: --pretrained_upstream DIR.
# Made for two GPUs with 24 GB or more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./run.sh --local_data_opts "--hours 10" --train_set train_10h --ngpu 2 \
    --datadir data_10h --dumpdir dump_10h --expdir exp_10h --nbpe 300 \
    --pretrained_upstream exp/ssl_train_ssl_960h_raw/upstream \
    --asr_config conf/train_asr_ctc_10h.yaml --adaptive_configs "" --skip_stages 11 \
    "$@"
