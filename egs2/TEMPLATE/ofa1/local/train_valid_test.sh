#!/usr/bin/env bash
# data/{train,valid,test} of a corpus with a training and a test part; validation speakers
# are taken from the training part. Run by local/data.sh of such a corpus.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

corpus=""               # its name in db.sh (local/data.sh gives it)
train_part=""           # its training part (local/data.sh gives it)
test_part=""            # its test part, a|b: a or else b (local/data.sh gives it)
data_dir=""             # where the corpus is; by default from db.sh, else downloaded
download_dir=downloads  # where downloads go
datadir=data            # where data directories go
nj=2                    # parallel jobs
valid_speakers=""       # speakers of the training part for validation; by default a tenth
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options "${BASH_SOURCE[0]}" "$@"

options=(--audio_dir "${download_dir}/${corpus,,}_flac" --nj "${nj}")
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi
found=$(python3 "${OFA_ROOT}/local/download.py" --corpus "${corpus,,}" \
    --parts "${train_part} ${test_part}" --download_dir "${download_dir}" \
    --corpus_dir "${data_dir:-${!corpus}}")

prepare() { # NAME PART
    python3 "${OFA_ROOT}/local/prepare.py" --corpus_dir "${found}" --parts "$2" \
        --out_dir "${datadir}/$1" "${options[@]}"
}

# What is wrong with one part must not hide what is wrong with the other.
status=0
prepare test "${test_part}" || status=1
prepare train_and_valid "${train_part}" || status=1
[ "${status}" = 0 ] || exit 1
python3 -m espnet_ofa.bin.data split --data_dir "${datadir}/train_and_valid" \
    --train_dir "${datadir}/train" --valid_dir "${datadir}/valid" \
    ${valid_speakers:+--valid_speakers "${valid_speakers}"}
