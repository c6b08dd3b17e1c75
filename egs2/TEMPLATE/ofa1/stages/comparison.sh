# shellcheck shell=bash disable=SC2154
# Sourced by asr_systems.sh and cls_systems.sh: what systems share, and what is finished.
shopt -s extglob nullglob
# shellcheck source=/dev/null
. "${OFA_TEMPLATE}/utils/parse_options.sh"

upstream_of() { # SYSTEM: the one whose upstream it is fine-tuned from
    case $1 in
        squeeze) echo stochastic ;; # to one setting
        ofa_at_*) echo ofa ;;       # to one lambda
        *) echo "$1" ;;
    esac
}

# collect START CONFIG [END]: results of EXPDIR/START_SYSTEM_seedN, and of what learned a
# lambda from there, by this call and by earlier ones, as NAME@SEED=FOLDER; CONFIG is how
# the latter's folders begin, END how the former's end
collect() {
    local start=$1 config=$2 end=${3:-} base tag system dir learned
    for base in "${expdir}/${start}_"*_seed+([0-9]); do
        tag=${base#"${expdir}"/???_}         # system_mean2_seed0
        system=${base#"${expdir}/${start}_"} # mean2_seed0
        results "${system}" "${base}${end}"
        for dir in "${expdir}/${config}"*"_${tag}"; do
            learned=${dir#"${expdir}"/???_train_???_} # adaptive_price_system_ofa_seed0
            learned=${learned%"${tag}"}${system}      # adaptive_price_ofa_seed0
            results "${learned/_ofa_seed/_seed}" "${dir}"
        done
    done
}

results() { # SYSTEM_seedN DIR: a folder of results for each way of decoding
    local mark name=${1/_seed/@} marks=("$2"/!(packed)/.done)
    for mark in "${marks[@]}"; do
        mark=${mark%/.done}
        if [ ${#marks[@]} -gt 1 ]; then
            name=${1%_seed*}_${mark##*/}@${1##*_seed}
        fi
        echo "${name}=${mark}"
    done
}

report() { # FOLDER METRIC WHAT...: of what collect finds, if anything
    local out=$1 metric=$2 decoded
    mapfile -t decoded < <(collect "${@:3}")
    if [ ${#decoded[@]} -gt 0 ]; then
        python3 -m espnet_ofa.bin.report --metric "${metric}" \
            --decode_dirs "${decoded[@]}" --out "${out}"
    fi
}
