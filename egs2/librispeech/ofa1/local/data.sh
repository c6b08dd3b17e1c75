#!/usr/bin/env bash
# LibriSpeech: data/{train_10h, train_clean_100 or train_960,dev,test_clean,test_other}. dev
# holds dev-clean and dev-other; the ten hours are those of Libri-light.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

data_dir=""             # where the corpus is; by default LIBRISPEECH of db.sh, else downloaded
download_dir=downloads  # where downloads go
datadir=data            # where data directories go
nj=8                    # parallel jobs
hours=960               # 10: train_10h, where db.sh says or below data_dir, else downloaded;
                        # 100: train_clean_100; 960: train_960, and train_clean_100 as well
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
    10) train_parts="" ;;
    100) ;;
    960) train_parts+=" train-clean-360 train-other-500" ;;
    *) usage_error "--hours is 10, 100 or 960, not '${hours}'" ;;
esac
options=(--nj "${nj}")
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
corpus=$(python3 "${OFA_ROOT}/local/download.py" --corpus librispeech \
    --parts "${train_parts} dev-clean dev-other test-clean test-other" \
    --download_dir "${download_dir}" --corpus_dir "${data_dir:-${LIBRISPEECH}}")

prepare() { # NAME PARTS [CORPUS]
    python3 "${OFA_ROOT}/local/prepare.py" --corpus_dir "${3:-${corpus}}" \
        --parts "$2" --out_dir "${datadir}/$1" "${options[@]}"
}

prepare dev "dev-clean dev-other"
prepare test_clean test-clean
prepare test_other test-other
if [ "${hours}" = 10 ]; then
    ten_hours="$(echo 1h/{0..5}/{clean,other} 9h/{clean,other})"
    finetuning=$(python3 "${OFA_ROOT}/local/download.py" --corpus librispeech_finetuning \
        --parts "${ten_hours}" --download_dir "${download_dir}" \
        --corpus_dir "${LIBRISPEECH_FINETUNING:-${data_dir}}")
    prepare train_10h "${ten_hours}" "${finetuning}"
else
    prepare train_clean_100 train-clean-100
fi
if [ "${hours}" = 960 ]; then
    prepare train_960 "${train_parts}"
fi
