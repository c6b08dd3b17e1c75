# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by ofa.sh: checks options and derives the names of folders.

# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/checks.sh"
check_given train_set valid_set test_sets
check_stages
check_numbers ngpu num_nodes nj inference_nj num_threads nbpe
check_choice token_type bpe char phn
check_choice bpemode unigram bpe
check_choice audio_format flac wav
if [ "${g2p}" != none ] && [ "${token_type}" != phn ]; then
    usage_error "--g2p goes with --token_type phn"
fi
ssl_segments_tag=${ssl_segments}
case ${ssl_segments} in
    codes | detect | data | none) ;;
    *)
        [ -e "${ssl_segments}" ] || usage_error "--ssl_segments is codes, detect, data," \
            "none or a file or folder of alignments; there is no '${ssl_segments}'"
        ssl_segments_tag=aligned
        ;;
esac
if [ "${ssl_teacher_cache}" = true ] && [ -z "${ssl_teacher}" ]; then
    usage_error "--ssl_teacher_cache true needs --ssl_teacher"
fi
case ${fs} in
    16k | 16000) ;;
    *) usage_error "--fs is 16k, the rate of all upstreams, not '${fs}'" ;;
esac

skip "${skip_data_prep}" 1 2 3 4 5
skip "${skip_train}" 6 7 8 9 10 11 12
skip "${skip_eval}" 13
skip "${skip_packing}" 14
skip "${skip_upload_hf}" 15
if [ -n "${pretrained_upstream}" ]; then
    skip true 6 7 8
fi

# --- data
raw=${dumpdir}/raw
perturbed_set=${train_set}
if [ -n "${speed_perturb_factors}" ]; then
    perturbed_set=${train_set}_sp
fi
: "${ssl_train_set:=${train_set}}"
# The training data enters perturbed, like everywhere else.
ssl_parts=" ${ssl_train_set} "
ssl_parts=${ssl_parts/ ${train_set} / ${perturbed_set} }
if [ -n "${ssl_extra_dirs}" ]; then
    ssl_parts="${ssl_parts} ssl_extra"
fi
read -r -a ssl_parts <<<"${ssl_parts}"
ssl_dump=${raw}/${ssl_parts[0]}
if [ ${#ssl_parts[@]} -gt 1 ]; then
    ssl_dump=${raw}/ssl_train
fi
train_dump=${raw}/${perturbed_set}
valid_dump=${raw}/${valid_set}

# --- tokens
token_tag=${token_type}
if [ "${g2p}" != none ]; then
    token_tag+=_${g2p##*/}
    token_tag=${token_tag%.*}
fi
text_tag=${token_tag}
asr_raw=${raw} # data whose transcripts recognisers learn and are scored by
report=${expdir}/report
case ${token_type} in
    bpe)
        token_tag=bpe_${bpemode}${nbpe}
        text_tag=bpe${nbpe}
        ;;
    phn)
        asr_raw=${dumpdir}/${token_tag}
        report=${expdir}/report_${token_tag}
        ;;
esac
asr_train=${asr_raw}/${perturbed_set}
asr_valid=${asr_raw}/${valid_set}
token_dir=${datadir}/${lang}_token_list/${token_tag}
token_list=${token_dir}/tokens.txt
bpemodel=none
if [ "${token_type}" = bpe ]; then
    bpemodel=${token_dir}/bpe.model
fi

# --- models, named after their configurations as in asr.sh
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/systems.sh"
data_tag=raw_${lang}_${text_tag}
if [ -n "${speed_perturb_factors}" ]; then
    data_tag+=_sp
fi
: "${ssl_tag:=$(config_name "${ssl_config}")${ssl_system:+_${ssl_system}}_raw}"
: "${ssl_exp:=${expdir}/ssl_${ssl_tag}}"
: "${ssl_stats_dir:=${expdir}/ssl_stats_raw}"
: "${ssl_targets_dir:=${expdir}/ssl_targets_${ssl_segments_tag}${ssl_num_codes}}"
: "${ssl_teacher_dir:=${expdir}/ssl_teacher_${ssl_teacher##*/}}"
ssl_loss=masked
if [ -n "${ssl_teacher}" ]; then
    ssl_loss=distill
fi
: "${ssl_model:=valid.loss_${ssl_loss}.ave.pth}"
: "${asr_stats_dir:=${expdir}/asr_stats_${data_tag}}"
asr_end=${asr_system:+_${asr_system}}_${data_tag}
: "${asr_exp:=${expdir}/asr_${asr_tag:-$(config_name "${asr_config}")${asr_end}}}"
: "${s2s_exp:=${expdir}/asr_${s2s_tag:-$(config_name "${s2s_config}")${asr_end}}}"
adaptive_exp() { # CONFIG: tagged like the CTC model, which it starts from in the end
    echo "${expdir}/asr_$(config_name "$1")_${asr_tag:-${asr_end#_}}"
}
upstream=${pretrained_upstream:-${ssl_exp}/upstream}
: "${s2s_inference_lams:=${inference_lams}}"

# --- what a late stage would else find out after hours
if [ "${ssl_teacher_cache}" = true ]; then
    check_upstream_name ssl_teacher 6
else
    check_upstream_name ssl_teacher 8
fi
check_config ssl_config 8
check_own_upstream pretrained_upstream 9 10 11 12
check_config asr_config 9 10
check_config s2s_config 11
check_configs adaptive_configs 12
check_configs s2s_adaptive_configs 12
if will_run 13; then
    check_given inference_lams
    check_lams inference_lams "own|auto"
    check_lams s2s_inference_lams "own|auto"
    check_squeezes inference_squeezes
    if [[ " ${inference_lams} " == *" auto "* && ${inference_args} != *--max_* ]] \
        && ! grep -qs '^max_' "${inference_config}"; then
        usage_error "lambda auto needs --inference_args with --max_rtf or --max_macs_per_second"
    fi
fi
check_config inference_config 13
if will_run 11 || [ -f "${s2s_exp}/.done" ]; then
    check_config s2s_inference_config 13
fi
if will_run 14; then
    check_choice pack_onnx auto true false
fi
if will_run 15; then
    [ -n "${hf_repo}" ] || usage_error "stage 15 needs --hf_repo USER/NAME"
    packages=(ctc s2s)
    [ -n "${pretrained_upstream}" ] || packages+=(ssl)
    for config in ${adaptive_configs} ${s2s_adaptive_configs}; do
        packages+=("$(system_name "${config}")")
    done
    check_choice pack_system "${packages[@]}"
fi

# --- resources, which take longer to find
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/resources.sh"
