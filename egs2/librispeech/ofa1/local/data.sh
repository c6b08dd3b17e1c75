#!/usr/bin/env bash
# LibriSpeech: data/{train_clean_100 or train_960,dev,test_clean,test_other}. dev holds
# dev-clean and dev-other.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

data_dir=""             # where the corpus is; by default LIBRISPEECH of db.sh, else downloaded
download_dir=downloads  # where downloads go
datadir=data            # where data directories go
nj=8                    # parallel jobs
hours=960               # 100: train_clean_100; 960: train_960, and train_clean_100 as well
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"

train_parts="train-clean-100"
case ${hours} in
    100) ;;
    960) train_parts+=" train-clean-360 train-other-500" ;;
    *) usage_error "--hours is 100 or 960, not '${hours}'" ;;
esac
options=(--nj "${nj}")
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
corpus=$(python3 "${OFA_ROOT}/local/download.py" --corpus librispeech \
    --parts "${train_parts} dev-clean dev-other test-clean test-other" \
    --download_dir "${download_dir}" --corpus_dir "${data_dir:-${LIBRISPEECH}}")

prepare() { # NAME PARTS
    python3 "${OFA_ROOT}/local/prepare.py" --corpus_dir "${corpus}" \
        --parts "$2" --out_dir "${datadir}/$1" "${options[@]}"
}

prepare dev "dev-clean dev-other"
prepare test_clean test-clean
prepare test_other test-other
prepare train_clean_100 train-clean-100
if [ "${hours}" = 960 ]; then
    prepare train_960 "${train_parts}"
fi
