# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh: stages 13 to 15, from recognisers to results and packages.

# name dir checkpoint inference_config lambdas, tab separated, of every trained model
systems() {
    local config
    print_system ctc "${asr_exp}" "${inference_asr_model}" \
        "${inference_config}" "${inference_lams}"
    print_system s2s "${s2s_exp}" "${inference_s2s_model}" \
        "${s2s_inference_config}" "${s2s_inference_lams}"
    for config in ${adaptive_configs}; do
        print_system "$(system_name "${config}")" "$(adaptive_exp "${config}")" \
            "${inference_asr_model}" "${inference_config}" own
    done
    for config in ${s2s_adaptive_configs}; do
        print_system "$(system_name "${config}")" "$(adaptive_exp "${config}")" \
            "${inference_s2s_model}" "${s2s_inference_config}" own
    done
}

print_system() { # NAME DIR WORD...
    local name=$1 start
    if [ ! -f "$2/.done" ]; then
        [ ! -d "$2" ] || log "${name} is left out: $2 is not finished" >&2
        return
    fi
    # What .from says of the checkpoint of another model, where training started from one.
    start=$(made_from "$2" | awk -v ctc="${asr_exp}/" -v s2s="${s2s_exp:-none}/" \
        'index($0, ctc) == 1 || index($0, s2s) == 1')
    if [ -n "${start}" ] && [ "$(describe "${start% * *}")" != "${start}" ]; then
        log "${name} is left out: ${start% * *} is no longer what $2 started from;" \
            "train it again with --overwrite true" >&2
        return
    fi
    (IFS=$'\t' && shift && echo "${name}"$'\t'"$*")
}

decode_dir() { # DIR CONFIG
    echo "$1/${inference_tag:-$(config_name "$2")}"
}

stage_13() {
    local found name dir model config lams dirs=() options=()
    found=$(systems)
    [ -n "${found}" ] || die "no trained model in ${expdir}; run stages 10 to 12 first"
    while IFS=$'\t' read -r name dir model config lams <&3; do
        decode "${dir}" "${model}" "${config}" "${lams}"
        dirs+=("${name}=$(decode_dir "${dir}" "${config}")")
    done 3<<<"${found}"
    if [ -f "${upstream}/rate.json" ]; then
        options+=(--ssl_stats "${upstream}/rate.json")
    fi
    if [ -n "${readme}" ]; then
        options+=(--readme "${readme}")
    fi
    # Its table is the last thing on the screen.
    python3 -m espnet_ofa.bin.report --expdir "${expdir}" --decode_dirs "${dirs[@]}" \
        --out "${report}" ${options[@]+"${options[@]}"}
}

decode() { # DIR CHECKPOINT CONFIG LAMBDAS
    local dir=$1 model=$2 config=$3 lams=$4 out set dumps=() sets=() options inputs
    lams+=${inference_squeezes:+ --squeeze ${inference_squeezes}}
    out=$(decode_dir "${dir}" "${config}")
    need_checkpoint "${dir}/${model}" "10 to 12"
    for set in ${test_sets}; do
        need "${asr_raw}/${set}/wav.scp" "3 (with phn also 5)"
        dumps+=("${asr_raw}/${set}")
        sets+=(--test_set "${set}:${asr_raw}/${set}")
    done
    mapfile -t inputs < <(data_files "${dumps[@]}")
    # Starts empty where anything differs: nothing old may end in the table.
    if ! to_do "${out}" "${config}" "${dir}/config.yaml" "${dir}/${model}" \
        "lams=${lams}" "sets=${test_sets}" "args=${inference_args}" \
        "jobs=${inference_nj}" "gpu=${gpu_inference}" "${inputs[@]}"; then
        return
    fi
    log "decoding with ${dir}/${model}; logs: ${out}/log"
    read -r -a options <<<"--lam ${lams} ${inference_args}"
    options+=(--config "${config}" --ngpu "${inference_gpu}"
        --asr_train_config "${dir}/config.yaml" --asr_model_file "${dir}/${model}")
    if [ "${inference_nj}" -le 1 ]; then
        run_inference "${out}/log/decode.log" --output_dir "${out}" "${sets[@]}" \
            "${options[@]}"
    else
        for set in ${test_sets}; do
            split_keys "${asr_raw}/${set}/wav.scp" "${out}/logdir/${set}" "${inference_nj}" \
                --inference_nj
            run_inference JOB=1:"${inference_nj}" "${out}/log/${set}.JOB.log" \
                --key_file "${out}/logdir/${set}.JOB.scp" \
                --output_dir "${out}/logdir/output.JOB" \
                --test_set "${set}:${asr_raw}/${set}" "${options[@]}"
        done
    fi
    finish "${out}"
}

run_inference() { # [JOB=1:N] LOG OPTION...
    local where=("$1") threads=${num_threads}
    shift
    if [[ ${where[0]} == JOB=* ]]; then
        where+=("$1")
        shift
        if [[ ${decode_cmd} == *run.pl* ]]; then # all on this machine
            threads=$((threads > inference_nj ? threads / inference_nj : 1))
        fi
    fi
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=${threads} ${decode_cmd} --gpu "${inference_gpu}" \
        --num_threads "${threads}" "${where[@]}" \
        python3 -m espnet_ofa.bin.asr_inference "$@"
}

# name dir checkpoint of all that stage 14 packs: an upstream has no checkpoint
packable() {
    systems | cut -f1-3
    if [ -z "${pretrained_upstream}" ] && [ -f "${ssl_exp}/upstream/rate.json" ]; then
        printf 'ssl\t%s\n' "${ssl_exp}"
    fi
}

stage_14() {
    local found name dir model
    found=$(packable)
    [ -n "${found}" ] || die "no trained model in ${expdir}; run stages 8 to 12 first"
    while IFS=$'\t' read -r name dir model <&3; do
        if [ "${name}" = ssl ]; then
            pack ssl "${dir}" "" \
                pack_upstream --upstream_dir "${dir}/upstream" --onnx "${pack_onnx}"
            continue
        fi
        need_checkpoint "${dir}/${model}" "10 to 12"
        pack "${name}" "${dir}" "${model}" \
            pack_asr --exp_dir "${dir}" --model_file "${model}"
    done 3<<<"${found}"
}

pack_inputs() { # NAME DIR CHECKPOINT: what the package is made from, one per line
    printf '%s\n' "license=${hf_license}${hf_license_name:+, ${hf_license_name}}" \
        "datasets=${hf_datasets}" "lang=${lang}"
    if [ "$1" = ssl ]; then
        printf '%s\n' "onnx=${pack_onnx}" "$2"/upstream/* "$2/train.log"
    else
        printf '%s\n' "$2/$3" "$2/config.yaml" "$2/train.log" "${bpemodel}"
        find "$2" -path '*/lam*/stats.json' | sort # they are on the card
    fi
}

pack() { # NAME DIR CHECKPOINT COMMAND OPTION...: into DIR/packed
    local name=$1 packed=$2/packed inputs
    mapfile -t inputs < <(pack_inputs "$1" "$2" "$3")
    shift 3
    if to_do "${packed}" "${inputs[@]}"; then
        # shellcheck disable=SC2086
        tool "${packed}/pack.log" publish "$@" --out_dir "${packed}/model" \
            --zip "${packed}/model.zip" --license "${hf_license}" \
            ${hf_license_name:+--license_name "${hf_license_name}"} \
            --datasets ${hf_datasets} --language "${lang}"
        finish "${packed}"
    fi
    log "${name}: ${packed}/model and model.zip beside it"
}

stage_15() {
    local found dir model inputs wanted
    found=$(packable)
    IFS=$'\t' read -r dir model < <(awk -F'\t' -v OFS='\t' -v name="${pack_system}" \
        '$1 == name {print $2, $3}' <<<"${found}") || true
    [ -n "${dir}" ] || die "--pack_system ${pack_system}: not trained; there are:" \
        "$(cut -f1 <<<"${found}" | paste -s -d' ')"
    need "${dir}/packed/.done" 14
    mapfile -t inputs < <(pack_inputs "${pack_system}" "${dir}" "${model}")
    wanted=$(describe "${inputs[@]}")
    if [ "$(made_from "${dir}/packed")" != "${wanted}" ]; then
        show_changes "${dir}/packed" "${wanted}"
        die "${dir}/packed is not of what is there now; run stage 14 again"
    fi
    # shellcheck disable=SC2086
    python3 -m espnet_ofa.bin.publish upload --folder "${dir}/packed/model" \
        --repo "${hf_repo}" ${hf_args}
}
