#!/usr/bin/env bash
# Mini LibriSpeech: data/{train,valid,test}. The test set is dev-clean-2, or dev-clean
# where the corpus has that.
set -euo pipefail
# shellcheck source=/dev/null
. ./path.sh
exec "${OFA_TEMPLATE}/local/train_valid_test.sh" --corpus MINI_LIBRISPEECH \
    --train_part train-clean-5 --test_part "dev-clean-2|dev-clean" "$@"
