# shellcheck shell=bash disable=SC2154
# Sourced by ofa.sh and cls.sh: how trainings and parallel jobs are started.

# Cores that one process of a training keeps busy: its threads, and the data loader's
# workers as the configuration or a later option says (ESPnet's default is 1).
cores_of() { # OPTION...
    local workers=1
    while [ $# -gt 1 ]; do
        case $1 in
            --config) workers=$(sed -n 's/^num_workers: *\([0-9]*\).*/\1/p' "$2") ;;
            --num_workers) workers=$2 ;;
        esac
        shift
    done
    echo $((num_threads + ${workers:-1}))
}

train() { # DIR MODULE OPTION...: ESPnet's trainer; an interrupted training goes on
    local dir=$1 module=$2 command job_cores
    shift 2
    job_cores=$(($(cores_of "$@") * (ngpu > 1 ? ngpu : 1)))
    command=(python3 -m "${module}" --output_dir "${dir}" --resume true "$@")
    log "training log: ${dir}/train.log"
    if [ "${ngpu}" -gt 1 ] || [ "${num_nodes}" -gt 1 ]; then
        # For several nodes, launch says --num_threads itself: one for each GPU.
        python3 -m espnet2.bin.launch \
            --cmd "${cuda_cmd} --name ${dir##*/} --num_threads ${job_cores}" \
            --log "${dir}/train.log" --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
            --init_file_prefix "${dir}/.dist_init_" --multiprocessing_distributed true \
            -- "${command[@]}"
        return
    fi
    if [ -f "${dir}/train.log" ]; then
        mv "${dir}/train.log" "${dir}/train.1.log" # of the interrupted run
    fi
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=${num_threads} ${cuda_cmd} --gpu "${ngpu}" \
        --num_threads "${job_cores}" "${dir}/train.log" \
        "${command[@]}" --ngpu "${ngpu}"
}

split_keys() { # SCP PREFIX JOBS OPTION: PREFIX.1.scp ... of nearly equal length
    local scp=$1 prefix=$2 jobs=$3 job
    mkdir -p "$(dirname "${prefix}")"
    if [ "$(wc -l <"${scp}")" -lt "${jobs}" ]; then
        die "${scp} has fewer utterances than jobs (${jobs}); give a smaller $4"
    fi
    for ((job = 1; job <= jobs; job++)); do
        awk -v n="${jobs}" -v j="${job}" 'NR % n == j % n' "${scp}" >"${prefix}.${job}.scp"
    done
}
