# shellcheck shell=bash disable=SC2154
# Sourced by cls.sh: stages 2 to 7. Stage 1 is that of data.sh.

stage_2() {
    local name
    for name in ${train_set} ${valid_set} ${test_sets}; do
        format_set "${name}" "${raw}/${name}"
    done
}

# Batching needs lengths only, which formatting has counted; a label is one token.
stage_3() {
    local inputs which dump set texts=()
    for set in ${train_set} ${valid_set} ${test_sets}; do
        need "${raw}/${set}/text" 2
        texts+=("${raw}/${set}/text")
    done
    mapfile -t inputs < <(data_files "${train_dump}" "${valid_dump}")
    inputs+=("${texts[@]:2}")
    if ! to_do "${cls_stats_dir}" "${inputs[@]}"; then
        return
    fi
    python3 "${OFA_TEMPLATE}/pyscripts/cls_classes.py" --train "${train_dump}/text" \
        --others "${texts[@]:1}" --output "${token_list}"
    for which in train valid; do
        dump=${which}_dump
        mkdir -p "${cls_stats_dir}/${which}"
        cp "${!dump}/utt2num_samples" "${cls_stats_dir}/${which}/speech_shape"
        sed 's/ .*/ 1/' "${!dump}/text" >"${cls_stats_dir}/${which}/label_shape"
    done
    finish "${cls_stats_dir}"
}

# train_classifier DIR CONFIG INIT [OPTION...]; INIT: a checkpoint to start from, or ""
train_classifier() {
    local dir=$1 config=$2 init=$3 options inputs which dump shapes file
    local -A from
    shift 3
    need "${cls_stats_dir}/.done" 3
    inputs=("${config}" "args=${cls_args} $*" "upstream=${upstream}" "${token_list}"
        "${cls_stats_dir}"/{train,valid}/speech_shape
        "${train_dump}/text" "${valid_dump}/text")
    for file in "${upstream}" "${upstream}"/{config.yaml,model.safetensors}; do
        if [ -f "${file}" ]; then
            inputs+=("${file}")
        fi
    done
    options=(--config "${config}" --token_list "${token_list}"
        --frontend_conf "upstream=${upstream}" --frontend_conf "fs=${fs}")
    from=([train]=$(learning_set "${config}") [valid]=valid)
    for which in train valid; do
        dump=${from[${which}]}_dump
        shapes=${cls_stats_dir}/${from[${which}]}
        options+=("--${which}_data_path_and_name_and_type" "${!dump}/wav.scp,speech,sound"
            "--${which}_data_path_and_name_and_type" "${!dump}/text,label,text"
            "--${which}_shape_file" "${shapes}/speech_shape"
            "--${which}_shape_file" "${shapes}/label_shape")
    done
    if [ -n "${init}" ]; then
        inputs+=("${init}")
        options+=(--init_param "${init}")
    fi
    if to_train "${dir}" "${inputs[@]}"; then
        # shellcheck disable=SC2086
        train "${dir}" espnet_ofa.bin.cls_train "${options[@]}" ${cls_args} "$@"
        finish "${dir}"
    fi
}

stage_4() {
    train_classifier "${cls_exp}" "${cls_config}" ""
}

stage_5() {
    local config lam
    for config in ${adaptive_configs}; do
        need "${cls_exp}/${inference_model}" 4
        # shellcheck disable=SC2086
        train_classifier "$(adaptive_exp "${config}")" "${config}" \
            "${cls_exp}/${inference_model}" ${adaptive_args}
    done
    for lam in ${fixed_lams}; do
        train_classifier "$(fixed_exp "${lam}")" "${cls_config}" "" \
            --frontend_conf "lam=${lam}" --frontend_conf "lam_train=${lam}"
    done
}

# name dir checkpoint lambdas, tab separated, of every trained model
cls_systems() {
    local config lam
    print_system "${system}" "${cls_exp}" "${inference_model}" "${inference_lams}"
    for config in ${adaptive_configs}; do
        print_system "$(system_name "${config}")" "$(adaptive_exp "${config}")" \
            "${inference_model}" own
    done
    for lam in ${fixed_lams}; do
        print_system "fixed_${lam}" "$(fixed_exp "${lam}")" "${inference_model}" "${lam}"
    done
}

stage_6() {
    local found name dir model lams out set inputs dumps=() sets=() dirs=()
    local todo=() made=() options=() squeeze=${inference_squeezes:+--squeeze ${inference_squeezes}}
    found=$(cls_systems)
    [ -n "${found}" ] || die "no trained model in ${expdir}; run stages 4 and 5 first"
    for set in ${test_sets}; do
        need "${raw}/${set}/wav.scp" 2
        dumps+=("${raw}/${set}")
        sets+=(--test_set "${set}:${raw}/${set}")
    done
    mapfile -t inputs < <(data_files "${dumps[@]}")
    while IFS=$'\t' read -r name dir model lams <&3; do
        out=${dir}/${inference_tag}
        need "${dir}/${model}" "4 and 5"
        dirs+=("${name}=${out}")
        # Starts empty where anything differs: nothing old may end in the table.
        if to_do "${out}" "${dir}/config.yaml" "${dir}/${model}" \
            "lams=${lams}${squeeze:+ ${squeeze}}" "sets=${test_sets}" "args=${inference_args}" \
            "gpu=${gpu_inference}" "${inputs[@]}"; then
            # shellcheck disable=SC2206
            todo+=(--system "${dir}/config.yaml" "${dir}/${model}" "${out}" ${lams})
            made+=("${out}")
        fi
    done 3<<<"${found}"
    if [ ${#made[@]} -gt 0 ]; then
        log "classifying with ${#made[@]} model(s); log: ${made[0]}/classify.log"
        # shellcheck disable=SC2086
        OMP_NUM_THREADS=${num_threads} ${decode_cmd} --gpu "${inference_gpu}" \
            --num_threads "${num_threads}" "${made[0]}/classify.log" \
            python3 -m espnet_ofa.bin.cls_inference "${sets[@]}" "${todo[@]}" ${squeeze} \
            --ngpu "${inference_gpu}" ${inference_args}
        for out in "${made[@]}"; do
            finish "${out}"
        done
    fi
    if [ -f "${upstream}/rate.json" ]; then
        options+=(--ssl_stats "${upstream}/rate.json")
    fi
    if [ -n "${readme}" ]; then
        options+=(--readme "${readme}")
    fi
    # Its table is the last thing on the screen.
    python3 -m espnet_ofa.bin.report --metric accuracy --expdir "${expdir}" \
        --decode_dirs "${dirs[@]}" --out "${expdir}/report" \
        ${options[@]+"${options[@]}"}
}

stage_7() {
    local found name dir model lams
    found=$(cls_systems)
    [ -n "${found}" ] || die "no trained model in ${expdir}; run stages 4 and 5 first"
    while IFS=$'\t' read -r name dir model lams <&3; do
        need "${dir}/${model}" "4 and 5"
        pack "${name}" "${dir}" "${model}" \
            pack_cls --exp_dir "${dir}" --model_file "${model}"
    done 3<<<"${found}"
}
