# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh: stages 1 to 5, from a corpus to formatted audio and tokens.

# What --data_dir, db.sh and the environment say of the corpora that local/data.sh knows.
corpora() {
    local name
    if [ -n "${data_dir}" ]; then
        corpus_folder "${data_dir}"
        return
    fi
    # shellcheck source=/dev/null
    . ./db.sh
    sed -n 's/^\([A-Z0-9_]*\)=.*/\1/p' db.sh | while read -r name; do
        if [ -n "${!name}" ] && grep -qw "${name}" local/data.sh; then
            corpus_folder "${!name}"
        fi
    done
}

# One checksum of the programs that prepare corpora, wherever the checkout lies.
preparation_code() {
    find "${OFA_ROOT}/local" "${OFA_TEMPLATE}/local" local/ -name '*.[ps][yh]' -print0 \
        | sort -z | xargs -0 cat | cksum
}

stage_1() {
    if [ ! -d "${OFA_ROOT}/local" ]; then
        die "${OFA_ROOT}/local does not exist: set OFA_ROOT to a checkout of espnet_ofa"
    fi
    local name dir extra=() inputs options=${local_data_opts} skip=()
    if [ -n "${data_dir}" ] && [ ! -d "${data_dir}" ]; then
        die "--data_dir ${data_dir}: no such folder"
    fi
    for dir in ${ssl_extra_dirs}; do
        [ -d "${dir}" ] || die "--ssl_extra_dirs ${dir}: no such folder"
    done
    if [ "${skip_bad}" = true ]; then
        options+=" --skip_bad true"
        skip=(--skip_bad)
    fi
    for name in ${train_set} ${valid_set} ${test_sets} ${ssl_train_set}; do
        if [ ! -f "${datadir}/${name}/wav.scp" ]; then
            rm -f "${datadir}/.done"
        fi
    done
    inputs=(local/data.sh "code=$(preparation_code)" "options=${options}"
        "corpus=$(corpora)")
    if to_update "${datadir}" "${inputs[@]}"; then
        # shellcheck disable=SC2086
        local/data.sh --data_dir "${data_dir}" --download_dir "${download_dir}" \
            --datadir "${datadir}" --nj "${nj}" ${options}
        finish "${datadir}"
    fi
    for dir in ${ssl_extra_dirs}; do
        dir=${dir%/}
        extra+=("${datadir}/ssl_extra_parts/$((${#extra[@]} + 1))_${dir##*/}")
        if to_do "${extra[-1]}" "corpus=$(corpus_folder "${dir}")" "skip=${skip_bad}"; then
            python3 "${OFA_ROOT}/local/prepare.py" --audio_only --corpus_dir "${dir}" \
                --parts "${dir##*/}" --out_dir "${extra[-1]}" --nj "${nj}" \
                ${skip[@]+"${skip[@]}"}
            finish "${extra[-1]}"
        fi
    done
    if [ ${#extra[@]} -gt 0 ]; then
        combine "${datadir}/ssl_extra" "${extra[@]}"
    fi
}

combine() { # OUT DIR...
    local out=$1 inputs
    shift
    mapfile -t inputs < <(data_files "$@")
    if to_do "${out}" "${inputs[@]}"; then
        tool "${out}/log/combine.log" data combine --out_dir "${out}" "$@"
        finish "${out}"
    fi
}

stage_2() {
    local in=${datadir}/${train_set} out=${datadir}/${perturbed_set} inputs
    if [ -z "${speed_perturb_factors}" ]; then
        log "no --speed_perturb_factors: nothing to do"
        return
    fi
    need "${in}/wav.scp" 1
    mapfile -t inputs < <(data_files "${in}")
    if to_do "${out}" "factors=${speed_perturb_factors}" "${inputs[@]}"; then
        tool "${out}/log/perturb.log" data perturb --data_dir "${in}" \
            --out_dir "${out}" --audio_dir "${out}/audio" --nj "${nj}" \
            --speed_perturb_factors "${speed_perturb_factors}" \
            --audio_format "${audio_format}"
        finish "${out}"
    fi
}

format_set() { # NAME OUT
    local in=${datadir}/$1 out=$2 inputs
    need "${in}/wav.scp" 1
    mapfile -t inputs < <(data_files "${in}")
    if to_do "${out}" "fs=${fs}" "format=${audio_format}" "${inputs[@]}"; then
        tool "${out}/log/format.log" data format --data_dir "${in}" --out_dir "${out}" \
            --fs "${fs}" --audio_format "${audio_format}" --nj "${nj}"
        finish "${out}"
    fi
}

# Data sets for training; all but the test sets, which are used as they are.
training_sets() {
    printf '%s\n' "${perturbed_set}" "${valid_set}" "${ssl_parts[@]}" | sort -u
}

stage_3() {
    local name
    for name in $(training_sets); do
        format_set "${name}" "${raw}/org/${name}"
    done
    for name in ${test_sets}; do
        if [[ " $(training_sets | tr '\n' ' ') " != *" ${name} "* ]]; then
            format_set "${name}" "${raw}/${name}"
        fi
    done
}

stage_4() {
    local name in out inputs
    for name in $(training_sets); do
        in=${raw}/org/${name} out=${raw}/${name}
        need "${in}/wav.scp" 3
        mapfile -t inputs < <(data_files "${in}")
        if to_do "${out}" "min=${min_wav_duration}" "max=${max_wav_duration}" \
            "${inputs[@]}"; then
            tool "${out}/log/filter.log" data filter --data_dir "${in}" \
                --out_dir "${out}" --log "${out}/log/dropped" --fs "${fs}" \
                --min_wav_duration "${min_wav_duration}" \
                --max_wav_duration "${max_wav_duration}"
            finish "${out}"
        fi
    done
    if [ ${#ssl_parts[@]} -gt 1 ]; then
        combine "${ssl_dump}" "${ssl_parts[@]/#/${raw}/}"
    fi
    mapfile -t inputs < <(printf '%s\n' "${train_dump}" "${valid_dump}" "${ssl_dump}" | sort -u)
    python3 -m espnet_ofa.bin.data summary "${inputs[@]}"
}

# Data directories with phones in the place of words.
phone_sets() {
    local name in out inputs
    for name in ${perturbed_set} ${valid_set} ${test_sets}; do
        in=${raw}/${name} out=${asr_raw}/${name}
        need "${in}/wav.scp" "3 and 4"
        mapfile -t inputs < <(data_files "${in}")
        if to_do "${out}" "g2p=${g2p}" "${g2p}" "${in}/phones" "${inputs[@]}"; then
            python3 "${OFA_ROOT}/local/phones.py" --data_dir "${in}" --out_dir "${out}" \
                --g2p "${g2p}" --nj "${nj}"
            finish "${out}"
        fi
    done
}

stage_5() {
    local texts=("${datadir}/${train_set}/text") text options=()
    if [ "${token_type}" = phn ]; then
        phone_sets
        texts=("${asr_train}/text")
    elif [ -n "${bpe_train_text}" ]; then
        read -r -a texts <<<"${bpe_train_text}"
    fi
    for text in "${texts[@]}"; do
        need "${text}" 1
    done
    if [ "${token_type}" = bpe ]; then
        options+=(--nbpe "${nbpe}" --bpemode "${bpemode}")
        if [ -n "${bpe_nlsyms}" ]; then
            options+=(--bpe_nlsyms "${bpe_nlsyms}")
        fi
    fi
    if [ "${nlsyms_txt}" != none ]; then
        options+=(--nlsyms "$(paste -s -d, "${nlsyms_txt}")")
    fi
    if to_do "${token_dir}" "${options[*]}" "${texts[@]}"; then
        tool "${token_dir}/log/tokens.log" data tokens --text "${texts[@]}" \
            --out_dir "${token_dir}" --token_type "${token_type}" \
            ${options[@]+"${options[@]}"}
        finish "${token_dir}"
    fi
}
