# shellcheck shell=bash disable=SC2034,SC2154
# Sourced: cores, GPUs and threads, where options do not say.

# Cores that this process may use: by its affinity, and by its control group's quota.
count_cores() {
    local cores quota=max period
    cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    if [ -r /sys/fs/cgroup/cpu.max ]; then
        read -r quota period </sys/fs/cgroup/cpu.max
    fi
    if [ "${quota}" != max ]; then
        quota=$(((quota + period - 1) / period))
        cores=$((quota < cores ? quota : cores))
    fi
    echo "${cores}"
}
cores=$(count_cores)
: "${nj:=$((cores < 32 ? cores : 32))}"
if [ -z "${ngpu}" ]; then
    ngpu=0
    find_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
    if python3 -c "${find_gpu}" 2>/dev/null; then
        ngpu=1
    fi
fi
: "${num_threads:=$((ngpu > 0 ? 1 : cores))}"
inference_gpu=0
if [ "${gpu_inference}" = true ]; then
    inference_gpu=1
fi
