#!/usr/bin/env bash
# LibriSpeech, 960 hours for pre-training and for fine-tuning. Made for one node of eight
# GPUs with 40 GB or more; cmd.sh submits to Slurm with cmd_backend=slurm.
# Pre-train on 960 hours, fine-tune on 100:
#   ./run.sh --train_set train_clean_100 --ssl_train_set train_960
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./ofa.sh --lang en --train_set train_960 --valid_set dev \
    --test_sets "test_clean test_other" --max_wav_duration 30 --ngpu 8 --nj 32 \
    --inference_nj 32 --nbpe 1000 --ssl_num_codes 500 \
    --ssl_config conf/train_ssl_960h.yaml \
    --asr_config conf/train_asr_ctc.yaml \
    --s2s_config conf/train_asr_s2s.yaml \
    "$@"
