#!/usr/bin/env bash
# LibriSpeech, 960 hours for pre-training and for fine-tuning. Made for one node of eight
# GPUs with 40 GB or more; cmd.sh submits to Slurm with cmd_backend=slurm.
# Fine-tune on 100 hours what this pre-trained on 960:
#   ./run_100h.sh --expdir exp_960h_100h \
#       --pretrained_upstream exp/ssl_train_ssl_960h_raw/upstream
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./ofa.sh --train_set train_960 --valid_set dev \
    --test_sets "test_clean test_other" --max_wav_duration 30 --ngpu 8 --nj 32 \
    --inference_nj 32 --nbpe 1000 --ssl_num_codes 100 \
    --ssl_config conf/train_ssl_960h.yaml --hf_datasets openslr/librispeech_asr "$@"
