#!/usr/bin/env bash
# Every stage at a size that two CPU cores finish in about an hour; run.sh is the recipe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./run.sh --speed_perturb_factors "" --expdir exp_small \
    --ssl_config conf/small/train_ssl.yaml \
    --asr_config conf/small/train_asr_ctc.yaml \
    --s2s_config conf/small/train_asr_s2s.yaml \
    --adaptive_configs "conf/small/train_asr_adaptive.yaml conf/small/train_asr_adaptive_price.yaml" \
    --inference_lams "0 0.43 0.643 0.857 1" --s2s_inference_lams "0.643" \
    "$@"
