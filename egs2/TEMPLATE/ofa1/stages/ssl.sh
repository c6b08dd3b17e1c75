# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh: stages 6 to 8, from audio to an upstream.

# Names of the two sets below the folders of targets and shapes.
ssl_train_name() { basename "${ssl_dump}"; }

encoder_files() { # WORD...: the weights of those words that are encoders
    local word file
    for word in "$@"; do
        for file in "${word}" "${word}"/{model.safetensors,pytorch_model.bin}; do
            if [ -f "${file}" ]; then
                echo "${file}"
            fi
        done
    done
}

alignment_files() { # what --ssl_segments names, where that is a path
    case ${ssl_segments} in
        codes | detect | data | none) return ;;
    esac
    if [ -f "${ssl_segments}" ]; then
        echo "${ssl_segments}"
    elif [ -f "${ssl_segments}/boundaries" ]; then
        echo "${ssl_segments}/boundaries"
    else
        corpus_folder "${ssl_segments}"
    fi
}

stage_6() {
    local out=${ssl_targets_dir} inputs
    need "${ssl_dump}/wav.scp" 4
    need "${valid_dump}/wav.scp" 4
    # shellcheck disable=SC2086
    mapfile -t inputs < <(
        data_files "${ssl_dump}" "${valid_dump}"
        encoder_files ${ssl_targets_args}
        alignment_files
    )
    if to_do "${out}" "codes=${ssl_num_codes}" "segments=${ssl_segments}" \
        "args=${ssl_targets_args}" "${inputs[@]}"; then
        # shellcheck disable=SC2086
        tool "${out}/targets.log" ssl_targets \
            --data_dirs "${ssl_dump}" "${valid_dump}" --output_dir "${out}" \
            --num_codes "${ssl_num_codes}" --segments "${ssl_segments}" --nj "${nj}" \
            --resume ${ssl_targets_args}
        finish "${out}"
    fi
    if [ "${ssl_teacher_cache:-false}" = true ]; then
        cache_teacher
    fi
}

cache_teacher() { # of distillation; large, so that stage 8 may do without the teacher
    local out=${ssl_teacher_dir} inputs device=cpu
    mapfile -t inputs < <(
        data_files "${ssl_dump}" "${valid_dump}"
        encoder_files "${ssl_teacher}"
    )
    if to_do "${out}" "teacher=${ssl_teacher}" "args=${ssl_teacher_args}" \
        "${inputs[@]}"; then
        if [ "${ngpu}" -gt 0 ]; then
            device=cuda
        fi
        # shellcheck disable=SC2086
        OMP_NUM_THREADS=${num_threads} ${cuda_cmd} --gpu "$((ngpu > 0))" \
            --num_threads "${num_threads}" "${out}/teacher.log" \
            python3 -m espnet_ofa.bin.ssl_teacher \
            --data_dirs "${ssl_dump}" "${valid_dump}" --output_dir "${out}" \
            --teacher "${ssl_teacher}" --device "${device}" ${ssl_teacher_args}
        finish "${out}"
    fi
}

# Batching needs the number of samples only, which formatting has counted: this checks
# that targets (and segments) exist and fit for every utterance, and writes the shapes.
stage_7() {
    local out=${ssl_stats_dir} targets=${ssl_targets_dir} name dir inputs
    name=$(ssl_train_name)
    need "${targets}/${name}/targets" 6
    mapfile -t inputs < <(data_files "${ssl_dump}" "${valid_dump}")
    for dir in "${name}" "${valid_set}"; do
        inputs+=("${targets}/${dir}/targets")
        if [ "${ssl_segments}" != none ]; then
            inputs+=("${targets}/${dir}/boundaries")
        fi
    done
    if to_do "${out}" "segments=${ssl_segments}" "${inputs[@]}"; then
        python3 "${OFA_TEMPLATE}/pyscripts/ssl_stats.py" \
            "train:${ssl_dump}:${targets}/${name}" \
            "valid:${valid_dump}:${targets}/${valid_set}" \
            --segments "${ssl_segments}" --output_dir "${out}"
        finish "${out}"
    fi
}

ssl_data_options() { # train|valid DUMP TARGETS: one per line
    local which=$1 dump=$2 targets=$3 option=--$1_data_path_and_name_and_type
    printf '%s\n' "${option}" "${dump}/wav.scp,speech,sound" \
        "${option}" "${targets}/targets,targets,text_int" \
        "--${which}_shape_file" "${ssl_stats_dir}/${which}/speech_shape"
    if [ "${ssl_segments}" != none ]; then
        printf '%s\n' "${option}" "${targets}/boundaries,boundaries,text_int"
    fi
    if [ "${ssl_teacher_cache:-false}" = true ]; then
        printf '%s\n' "${option}" \
            "${ssl_teacher_dir}/${targets##*/}/teacher.scp,teacher,text"
    fi
}

score_boundaries() { # of segments and fires, where the corpus knows the true ones
    local segments=()
    if [ ! -f "${valid_dump}/boundaries" ]; then
        return
    fi
    if [ "${ssl_segments}" != none ]; then
        segments=(--segments "guidance=${ssl_targets_dir}/${valid_set}")
    fi
    tool "${ssl_exp}/boundaries.log" ssl_boundaries --data_dir "${valid_dump}" \
        ${segments[@]+"${segments[@]}"} --upstream "${upstream}" --output "${ssl_exp}/boundaries.md"
    cat "${ssl_exp}/boundaries.md"
}

stage_8() {
    local train_targets valid_targets inputs options
    need "${ssl_stats_dir}/.done" 7
    train_targets=${ssl_targets_dir}/$(ssl_train_name)
    valid_targets=${ssl_targets_dir}/${valid_set}
    inputs=("${ssl_config}" "args=${ssl_args}" "segments=${ssl_segments}"
        "model=${ssl_model}" "${ssl_stats_dir}"/{train,valid}/speech_shape
        "${train_targets}/targets" "${valid_targets}/targets")
    if [ "${ssl_segments}" != none ]; then
        inputs+=("${train_targets}/boundaries" "${valid_targets}/boundaries")
    fi
    if [ -n "${ssl_teacher:-}" ]; then
        inputs+=("teacher=${ssl_teacher}")
        if [ "${ssl_teacher_cache}" = true ]; then
            need "${ssl_teacher_dir}/.done" 6
            inputs+=("${ssl_teacher_dir}"/*/teacher.json)
        fi
    fi
    # shellcheck disable=SC2086
    mapfile -t options < <(encoder_files ${ssl_teacher:-} ${ssl_args})
    inputs+=("${options[@]}")
    if to_train "${ssl_exp}" "${inputs[@]}"; then
        mapfile -t options < <(
            if [ -n "${ssl_teacher:-}" ]; then
                printf '%s\n' --teacher "${ssl_teacher}"
            fi
            ssl_data_options train "${ssl_dump}" "${train_targets}"
            ssl_data_options valid "${valid_dump}" "${valid_targets}"
        )
        # shellcheck disable=SC2086
        train "${ssl_exp}" espnet_ofa.bin.ssl_train --config "${ssl_config}" \
            --num_codes "${ssl_num_codes}" "${options[@]}" ${ssl_args}
        tool "${ssl_exp}/export.log" ssl_export \
            --train_config "${ssl_exp}/config.yaml" \
            --model_file "${ssl_exp}/${ssl_model}" \
            --data_dir "${valid_dump}" --output_dir "${upstream}"
        score_boundaries
        finish "${ssl_exp}"
    fi
    log "upstream: ${upstream}"
}
