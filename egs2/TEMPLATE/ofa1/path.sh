# shellcheck shell=bash
# Sourced by every script: the Python environment and where things are.
OFA_TEMPLATE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# Checkout of espnet_ofa; to be set where this folder was copied into an ESPnet tree.
OFA_ROOT=${OFA_ROOT:-$(cd "${OFA_TEMPLATE}/../../.." && pwd)}
export OFA_TEMPLATE OFA_ROOT

has_package() { # NAME: whether the Python that is active finds it
    local find='import sys; from importlib.util import *; sys.exit(not find_spec(sys.argv[1]))'
    (cd / && python3 -c "${find}" "$1")
}

if [ -f "${PWD}/../../../tools/activate_python.sh" ]; then # ESPnet's own environment
    set +eu
    # shellcheck disable=SC1091
    . "${PWD}/../../../tools/activate_python.sh"
    set -eu
elif [ -d "${OFA_ROOT}/.venv/bin" ] \
    && { [ -z "${VIRTUAL_ENV:-}" ] || ! has_package espnet2; }; then
    export VIRTUAL_ENV="${OFA_ROOT}/.venv"
    PATH="${VIRTUAL_ENV}/bin:${PATH}"
fi
# Kaldi's programs come first where a recipe has them.
export PATH="${PWD}/utils:${OFA_TEMPLATE}/utils:${PATH}"

if ! has_package espnet_ofa; then
    export PYTHONPATH="${OFA_ROOT}${PYTHONPATH:+:${PYTHONPATH}}"
fi
unset -f has_package

export OMP_NUM_THREADS=1 # for data; ofa.sh raises it for training on a CPU
# Threads that spin while they wait take a core from whatever else runs: then a training
# of two is several times as slow as one that sleeps, which costs nothing by itself.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
export PYTHONIOENCODING=UTF-8
export LC_ALL=C
