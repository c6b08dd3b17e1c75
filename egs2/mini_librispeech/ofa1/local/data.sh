#!/usr/bin/env bash
# Mini LibriSpeech: data/{train,valid,test}. Training and validation (other speakers) are
# train-clean-5; the test set is dev-clean-2, or dev-clean where the corpus has that.
# shellcheck disable=SC2034 # not every corpus needs every option
set -euo pipefail

data_dir=""             # where the corpus is; by default MINI_LIBRISPEECH of db.sh, else downloaded
download_dir=downloads  # where downloads go
datadir=data            # where data directories go
nj=2                    # parallel jobs
valid_speakers=2        # speakers of the training part that are kept for validation
skip_bad=false          # leave damaged files out instead of stopping
# End of options

# shellcheck source=/dev/null
. ./path.sh
# shellcheck source=/dev/null
. ./db.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"
parse_options local/data.sh "$@"

options=()
if [ "${skip_bad}" = true ]; then
    options+=(--skip_bad)
fi

corpus=${data_dir:-${MINI_LIBRISPEECH}}
if [ -z "${corpus}" ]; then
    corpus=$(python3 "${OFA_ROOT}/local/download.py" --corpus mini_librispeech \
        --download_dir "${download_dir}")
fi

find_part() { # PART...: the first of them that is there, and the folder that holds it
    local part dir
    for part in "$@"; do
        for dir in "${corpus}" "${corpus}"/{LibriSpeech,mini_librispeech,librispeech*}; do
            if [ -d "${dir}/${part}" ]; then
                echo "${part} ${dir}"
                return
            fi
        done
    done
    echo "$0: ${corpus} and the folders in it hold no $*" >&2
    return 1
}

prepare() { # OUT PART...
    local out=$1 dir part found
    shift
    found=$(find_part "$@")
    read -r part dir <<<"${found}"
    python3 "${OFA_ROOT}/local/prepare_librispeech.py" --corpus_dir "${dir}" \
        --parts "${part}" --out_dir "${out}" --nj "${nj}" ${options[@]+"${options[@]}"}
}

prepare "${datadir}/test" dev-clean-2 dev-clean
prepare "${datadir}/train_and_valid" train-clean-5
python3 -m espnet_ofa.bin.data split --data_dir "${datadir}/train_and_valid" \
    --train_dir "${datadir}/train" --valid_dir "${datadir}/valid" \
    --valid_speakers "${valid_speakers}"
