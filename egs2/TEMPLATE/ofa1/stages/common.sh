# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh: logging, and what is finished.

log() {
    local fname=${BASH_SOURCE[1]##*/}
    echo -e "$(date '+%Y-%m-%dT%H:%M:%S') (${fname}:${BASH_LINENO[0]}:${FUNCNAME[1]}) $*"
}

die() {
    log "Error: $*" >&2
    exit 1
}

# A folder and one checksum of the names and sizes of its files, so that a copy that was
# completed since is noticed.
corpus_folder() { # DIR
    echo "$1 $(find -L "$1" -type f -printf '%P %s\n' 2>/dev/null | sort | cksum)"
}

# What a result depends on, one line per option (name=value) or file, and per file among
# the words of args=. Files count by content, so that one made anew with the same content
# changes nothing. cksum, because POSIX has it and nobody forges these files.
describe() {
    local item word
    for item in "$@"; do
        if [ -f "${item}" ]; then
            echo "${item} $(cksum <"${item}" | cut -d' ' -f1,2)"
            continue
        fi
        echo "${item}"
        if [[ ${item} == args=* ]]; then
            for word in ${item#args=}; do # such as a checkpoint to start from
                if [ -f "${word}" ]; then
                    describe "${word}"
                fi
            done
        fi
    done
}

data_files() { # DIR...: the files that make a data directory what it is
    local dir name
    for dir in "$@"; do
        for name in wav.scp text utt2num_samples boundaries; do
            if [ -f "${dir}/${name}" ]; then
                echo "${dir}/${name}"
            fi
        done
    done
}

show_changes() { # DIR WANTED
    diff "$1/.from" <(echo "$2") | sed -n 's/^</    was:/p; s/^>/    now:/p' >&2 || true
}

# What a folder is made from stands in DIR/.from, before the work; DIR/.done comes after.
made_from() { # DIR
    cat "$1/.from" 2>/dev/null || true
}

# A status of 1 says "finished" to the callers of what follows, so failures must die.
begin() { # DIR WANTED
    { mkdir -p "$1" && rm -f "$1/.done" && echo "$2" >"$1/.from.new" \
        && mv "$1/.from.new" "$1/.from"; } || die "cannot write into $1"
}

empty() { # DIR: interrupted, it leaves what fits no description and is emptied again
    begin "$1" "to be emptied"
    find "$1/" -mindepth 1 ! -path "$1/.from" -delete || die "cannot empty $1"
}

is_finished() { # DIR WANTED
    [ -f "$1/.done" ] || return 1
    if [ "$(made_from "$1")" = "$2" ]; then
        log "finished before; to redo, remove $1/.done"
        return 0
    fi
    log "$1 was made from something else and is made again:"
    show_changes "$1" "$2"
    return 1
}

# to_update DIR ITEM...: whether DIR must (still) be made from these options and files.
to_update() {
    local dir=$1 wanted
    shift
    wanted=$(describe "$@")
    if is_finished "${dir}" "${wanted}"; then
        return 1
    fi
    begin "${dir}" "${wanted}"
}

# to_do DIR ITEM...: the same, but DIR starts empty where it was begun from something
# else; what was interrupted stays, its tool goes on from there.
to_do() {
    local dir=$1 wanted before
    shift
    wanted=$(describe "$@")
    before=$(made_from "${dir}")
    if [ -z "${before}" ] && [ -n "$(ls -A "${dir}" 2>/dev/null)" ]; then
        die "${dir} exists, but this recipe did not make it: remove it, or choose" \
            "another --datadir, --dumpdir or --expdir"
    fi
    if is_finished "${dir}" "${wanted}"; then
        return 1
    fi
    if [ -n "${before}" ] && [ "${before}" != "${wanted}" ]; then
        empty "${dir}"
    fi
    begin "${dir}" "${wanted}"
}

# The same for a folder of a model, which holds hours of work: never removed unasked.
to_train() {
    local dir=$1 wanted
    shift
    wanted=$(describe "$@")
    if [ -f "${dir}/.from" ] && [ "$(made_from "${dir}")" != "${wanted}" ]; then
        log "${dir} was trained from something else:"
        show_changes "${dir}" "${wanted}"
        if [ "${overwrite}" != true ]; then
            die "${dir}: give --overwrite true to train it again from the start; or" \
                "another tag (--ssl_tag, --asr_tag, --s2s_tag, --cls_tag) to keep it beside the" \
                "new one; or remove ${dir}/.from to go on from its last checkpoint"
        fi
        log "--overwrite true: emptying ${dir}"
        empty "${dir}"
    fi
    if [ -f "${dir}/.done" ] && [ -f "${dir}/.from" ]; then
        log "finished before; to run it again, remove ${dir}/.done"
        return 1
    fi
    begin "${dir}" "${wanted}"
}

finish() { # DIR
    touch "$1/.done"
}

need() { # FILE STAGE: an input and the stage that makes it
    [ -e "$1" ] || die "$1 does not exist; run stage $2 first"
}

need_checkpoint() { # FILE STAGE: the same, of a model
    if [ ! -e "$1" ] && [ -f "${1%/*}/.done" ]; then
        die "$1 does not exist: choose a checkpoint of ${1%/*} with" \
            "--inference_asr_model, or with --inference_s2s_model for the joint model"
    fi
    need "$1" "$2"
}

tool() { # LOG MODULE ARGUMENT...: one of our data tools as a job of its own
    local logfile=$1 module=$2
    shift 2
    # shellcheck disable=SC2086 # commands may hold options
    ${train_cmd} --num_threads "${nj}" "${logfile}" \
        python3 -m "espnet_ofa.bin.${module}" "$@"
}

learning_set() { # CONFIG: the set that it learns on, train or valid
    python3 "${OFA_TEMPLATE}/pyscripts/learning_set.py" "$1"
}

config_name() { # CONFIG: conf/tuning/train_asr.yaml -> train_asr
    local name=${1##*/}
    echo "${name%.yaml}"
}

system_name() { # CONFIG: conf/train_asr_adaptive.yaml -> adaptive
    local name
    name=$(config_name "$1")
    echo "${name#train_???_}"
}

is_left_out() { # STAGE
    [[ " ${skip_stages:-} " == *" $1 "* ]]
}

will_run() { # STAGE...: whether options ask for one of these
    local number
    for number in "$@"; do
        if ((number >= stage && number <= stop_stage)) && ! is_left_out "${number}"; then
            return
        fi
    done
    return 1
}

run_stages() { # TITLE...: of stages 1, 2 ...; those that will run
    local titles=("" "$@") number
    if [ -n "${skip_stages}" ]; then
        log "Left out: stages ${skip_stages# }"
    fi
    for ((number = 1; number < ${#titles[@]}; number++)); do
        if will_run "${number}"; then
            log "Stage ${number}: ${titles[number]}"
            "stage_${number}"
        fi
    done
}
