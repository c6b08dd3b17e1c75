#!/usr/bin/env bash
# AN4: data/{train,valid,test}.
set -euo pipefail
# shellcheck source=/dev/null
. ./path.sh
exec "${OFA_TEMPLATE}/local/train_valid_test.sh" --corpus AN4 \
    --train_part train --test_part test "$@"
