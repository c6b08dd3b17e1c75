#!/usr/bin/env bash
# Every stage in a few minutes on two CPU cores, with models too small to learn: a test of
# the machinery. Folders are its own, so that what run.sh has made stays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

data_opts="--train_utts 30 --valid_utts 6 --test_utts 6 --test_spell_utts 2"
./run.sh --local_data_opts "${data_opts}" --test_sets test --download_dir downloads/tiny \
    --datadir data_tiny --dumpdir dump_tiny --expdir exp_tiny \
    --nbpe 50 --ssl_num_codes 16 \
    --ssl_config conf/tiny/train_ssl.yaml \
    --asr_config conf/tiny/train_asr_ctc.yaml \
    --s2s_config conf/tiny/train_asr_s2s.yaml \
    --adaptive_configs "conf/tiny/train_asr_adaptive_price.yaml conf/tiny/train_asr_adaptive_valid.yaml" \
    --s2s_adaptive_configs conf/tiny/train_asr_s2s_adaptive.yaml \
    --s2s_inference_config conf/tiny/decode_s2s.yaml \
    --inference_lams "0 0.64 1" --s2s_inference_lams "0 1" \
    "$@"
