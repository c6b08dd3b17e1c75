# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by cls.sh: checks options and derives the names of folders.

# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/checks.sh"
check_given train_set valid_set test_sets
check_stages
check_numbers ngpu num_nodes nj num_threads
case ${fs} in
    16k | 16000) ;;
    *) usage_error "--fs is 16k, the rate of all upstreams, not '${fs}'" ;;
esac
skip "${skip_data_prep}" 1 2 3
skip "${skip_train}" 4 5
skip "${skip_eval}" 6
skip "${skip_packing}" 7
check_own_upstream upstream 4 5
if will_run 4 5; then
    [ -n "${upstream}" ] || usage_error "--upstream is required: a pre-trained upstream," \
        "folder or hub id (ofa.sh makes them)"
    if ! python3 -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torcheval"))'; then
        die "ESPnet's classification models need torcheval: pip install torcheval"
    fi
fi

# Stage 1 is shared with ofa.sh, and there is nothing to pre-train on.
ssl_train_set=""
ssl_extra_dirs=""

# Of a classifier, in the words of ASR. Upstreams are trained elsewhere.
if [ "${system}" = sandwich ]; then
    usage_error "--system sandwich is of ASR; for its upstream give --upstream alone"
fi
ssl_args="" asr_args=${cls_args}
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/systems.sh"
cls_args=${asr_args}

raw=${dumpdir}/raw
train_dump=${raw}/${train_set}
valid_dump=${raw}/${valid_set}
cls_stats_dir=${expdir}/cls_stats_raw
token_list=${cls_stats_dir}/classes.txt
bpemodel=none # a label is a word
: "${cls_tag:=$(config_name "${cls_config}")${asr_system:+_${asr_system}}_raw}"
cls_exp=${expdir}/cls_${cls_tag}
asr_exp=${cls_exp} # the model that others start from, in the words of results.sh
adaptive_exp() { # CONFIG: tagged like the model that it starts from
    echo "${expdir}/cls_$(config_name "$1")_${cls_tag}"
}
fixed_exp() { # LAMBDA
    echo "${cls_exp}_lam$1"
}

# --- what a late stage would else find out after hours
check_config cls_config 4 5
check_configs adaptive_configs 5
if will_run 5 6; then
    check_lams fixed_lams
fi
if will_run 6; then
    check_given inference_lams
    check_lams inference_lams own
    check_squeezes inference_squeezes
fi

# --- resources, which take longer to find
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/stages/resources.sh"
