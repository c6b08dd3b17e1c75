# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh: stages 9 to 12, from an upstream to recognisers.

# What text becomes tokens by, where options say so.
text_inputs() {
    local name
    for name in cleaner nlsyms_txt; do
        if [ "${!name}" != none ]; then
            echo "${name}=${!name}"
        fi
    done
    if [ -f "${nlsyms_txt}" ]; then
        echo "${nlsyms_txt}"
    fi
}

asr_options() { # CONFIG [SET]: what all of ESPnet's ASR commands share, one per line
    local -A from=([train]=${2:-train} [valid]=valid)
    printf '%s\n' --config "$1" --use_preprocessor true --token_type "${token_type}" \
        --token_list "${token_list}" --bpemodel "${bpemodel}" \
        --non_linguistic_symbols "${nlsyms_txt}" --cleaner "${cleaner}" --g2p none
    if grep -q '^frontend: *ofa' "$1"; then
        printf '%s\n' --frontend_conf "upstream=${upstream}" --frontend_conf "fs=${fs}"
    fi
    local which dump
    for which in train valid; do
        dump=asr_${from[${which}]}
        printf '%s\n' "--${which}_data_path_and_name_and_type" \
            "${!dump}/wav.scp,speech,sound" \
            "--${which}_data_path_and_name_and_type" "${!dump}/text,text,text"
    done
}

stats_options() { # SET: shapes, for training
    local -A from=([train]=$1 [valid]=valid)
    local which shapes
    for which in train valid; do
        shapes=${asr_stats_dir}/${from[${which}]}
        printf '%s\n' "--${which}_shape_file" "${shapes}/speech_shape" \
            "--${which}_shape_file" "${shapes}/text_shape.${token_type}"
    done
    printf '%s\n' --fold_length "${asr_speech_fold_length}" \
        --fold_length "${asr_text_fold_length}"
}

check_upstream() {
    if [ -n "${pretrained_upstream}" ]; then
        return # a folder, a hub id, or a config for random weights
    fi
    need "${upstream}/config.yaml" 8
}

# ESPnet takes most of a minute to start on two cores, so a job gets many utterances.
UTTERANCES_PER_JOB=20000

stage_9() {
    local out=${asr_stats_dir} jobs logdir options which dump inputs
    check_upstream
    need "${token_list}" 5
    mapfile -t inputs < <(data_files "${asr_train}" "${asr_valid}" && text_inputs)
    # Shapes depend on data and tokens; a configuration that normalises with global_mvn
    # would add its features, which pre-trained units are not meant for.
    if ! to_do "${out}" "${token_list}" "fs=${fs}" "${inputs[@]}"; then
        return
    fi
    jobs=$(($(wc -l <"${asr_train}/wav.scp") / UTTERANCES_PER_JOB + 1))
    jobs=$((jobs < nj ? jobs : nj))
    logdir=${out}/logdir
    mapfile -t options < <(asr_options "${asr_config}")
    for which in train valid; do
        dump=asr_${which}
        split_keys "${!dump}/wav.scp" "${logdir}/${which}" "${jobs}" --nj
        options+=("--${which}_shape_file" "${logdir}/${which}.JOB.scp")
    done
    # shellcheck disable=SC2086
    ${train_cmd} JOB=1:"${jobs}" "${logdir}/stats.JOB.log" \
        python3 -m espnet_ofa.bin.asr_train --collect_stats true --ngpu 0 \
        --output_dir "${logdir}/stats.JOB" "${options[@]}" ${asr_args}
    collect_shapes "${logdir}" "${jobs}" "${out}"
    finish "${out}"
}

collect_shapes() { # LOGDIR JOBS OUT
    local which job size
    size=$(wc -l <"${token_list}")
    for which in train valid; do
        mkdir -p "$3/${which}"
        for ((job = 1; job <= $2; job++)); do
            cat "$1/stats.${job}/${which}/speech_shape"
        done | sort >"$3/${which}/speech_shape"
        for ((job = 1; job <= $2; job++)); do
            cat "$1/stats.${job}/${which}/text_shape"
        done | sort | sed "s/\$/,${size}/" >"$3/${which}/text_shape.${token_type}"
    done
}

# fine_tune DIR CONFIG [INIT]: train a recogniser, from a checkpoint where one is given
fine_tune() {
    local dir=$1 config=$2 init=${3:-} options inputs learning text
    check_upstream
    need "${asr_stats_dir}/.done" 9
    learning=$(learning_set "${config}")
    text=asr_${learning}
    inputs=("${config}" "args=${asr_args}" "upstream=${upstream}" "${token_list}"
        "${asr_stats_dir}"/{train,valid}/{speech_shape,text_shape."${token_type}"}
        "${!text}/text")
    mapfile -t -O ${#inputs[@]} inputs < <(text_inputs)
    if [ -f "${upstream}/model.safetensors" ]; then
        inputs+=("${upstream}/model.safetensors")
    fi
    mapfile -t options < <(asr_options "${config}" "${learning}" && stats_options "${learning}")
    if [ -n "${init}" ]; then
        inputs+=("${init}")
        options+=(--init_param "${init}")
    fi
    if to_train "${dir}" "${inputs[@]}"; then
        # shellcheck disable=SC2086
        train "${dir}" espnet_ofa.bin.asr_train "${options[@]}" ${asr_args}
        finish "${dir}"
    fi
}

stage_10() {
    fine_tune "${asr_exp}" "${asr_config}"
}

stage_11() {
    if [ "${s2s_from_ctc}" = true ]; then
        need_checkpoint "${asr_exp}/${inference_asr_model}" 10
        fine_tune "${s2s_exp}" "${s2s_config}" "${asr_exp}/${inference_asr_model}"
    else
        fine_tune "${s2s_exp}" "${s2s_config}"
    fi
}

stage_12() {
    local config asr_args="${asr_args}${adaptive_args}" # as fine_tune sees them
    need_checkpoint "${asr_exp}/${inference_asr_model}" 10
    for config in ${adaptive_configs}; do
        fine_tune "$(adaptive_exp "${config}")" "${config}" \
            "${asr_exp}/${inference_asr_model}"
    done
    for config in ${s2s_adaptive_configs}; do
        if is_left_out 11 && [ ! -f "${s2s_exp}/.done" ]; then
            log "${config} is left out, as stage 11 is: there is no joint model"
            continue
        fi
        need_checkpoint "${s2s_exp}/${inference_s2s_model}" 11
        fine_tune "$(adaptive_exp "${config}")" "${config}" \
            "${s2s_exp}/${inference_s2s_model}"
    done
}
