#!/usr/bin/env bash
# Builds the virtual environment: requirements/install.sh run|test
#
#   run   what the recipes need;  test  that, and what the tests and linters need
#
# Environment: PYTHON (default python3) is the interpreter to build on, VENV
# (default .venv) the folder. pip is used with whatever configuration it has.
#
# If PYTHON has a torch built for CUDA, that torch is used where it lies and left
# alone; otherwise torch is installed here. May be run again at any time.
set -euo pipefail

cd "$(dirname "$0")/.."
kind=${1:-run}
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}
TORCH=torch==2.13.0

log() { echo "install: $*" >&2; }
die() {
    log "$*"
    exit 1
}

case ${kind} in
run) locks=(requirements/lock.txt) ;;
test) locks=(requirements/lock.txt requirements/lock-test.txt) ;;
*) die "usage: $0 run|test" ;;
esac

command -v "${PYTHON}" >/dev/null ||
    die "no '${PYTHON}' found; set PYTHON to a Python 3.11 or 3.12 interpreter"
version=$("${PYTHON}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case ${version} in
3.11 | 3.12) ;;
*) die "the pinned packages need Python 3.11 or 3.12, '${PYTHON}' is ${version};" \
    "set PYTHON, or 'pip install .' into an environment of your own" ;;
esac

# A folder copied from elsewhere, or whose interpreter is gone, is of no use.
python=${VENV}/bin/python
if ! "${python}" -c pass 2>/dev/null; then
    # The folder of a CUDA torch that PYTHON has, or nothing.
    cuda_torch=$(
        "${PYTHON}" - <<'EOF'
try:
    import torch
except Exception:
    torch = None
if torch is not None and torch.version.cuda is not None:
    print(torch.__path__[0].rsplit("/", 1)[0])
EOF
    )
    log "creating ${VENV} with Python ${version}"
    "${PYTHON}" -m venv --clear "${VENV}" ||
        die "cannot create ${VENV}; on Debian and Ubuntu install python3-venv"
fi
site_packages=$("${python}" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
theirs_pth=${site_packages}/zz_cuda_torch.pth
if [ -n "${cuda_torch:-}" ]; then
    # Read after this environment's own packages, so those come first.
    echo "import site; site.addsitedir('${cuda_torch}')" >"${theirs_pth}"
fi
pip=("${python}" -m pip --disable-pip-version-check install -qq)

# What to install: the lock files without comments and, beside a CUDA torch, without
# what belongs to it.
theirs='^(torch|torchaudio|triton)=='
[ -f "${theirs_pth}" ] || theirs='^$'
pins=$(mktemp)
trap 'rm -f "${pins}"' EXIT
cat "${locks[@]}" | grep -v '^#' | grep -vE "${theirs}" >"${pins}"

if [ -f "${theirs_pth}" ]; then
    log "using the CUDA torch of ${PYTHON}"
else
    log "installing ${TORCH}"
    # With its dependencies, because only the CUDA builds bring packages of their
    # own; the constraints keep the common ones at their pins.
    "${pip[@]}" --constraint requirements/lock.txt "${TORCH}"
fi

log "installing $(wc -l <"${pins}") pinned packages"
"${pip[@]}" --no-deps --requirement "${pins}"

if [ -f "${theirs_pth}" ] && ! "${python}" -c 'import torchaudio' 2>/dev/null; then
    # torchaudio carries torch's version up to 2.11, which serves all later ones.
    audio=$("${python}" -c '
import torch
major, minor = (int(part) for part in torch.__version__.split(".")[:2])
print("%d.%d" % min((major, minor), (2, 11)))')
    log "installing torchaudio ${audio}, which is missing beside your torch"
    "${pip[@]}" --no-deps "torchaudio==${audio}.*"
fi
if "${python}" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)'; then
    # The one build of torchaudio is linked against CUDA. Its Python parts, all that
    # ESPnet uses, work without the libraries.
    rm -f "${site_packages}"/torchaudio/lib/*.so
fi

log "installing espnet_ofa, editable"
"${pip[@]}" --no-deps --no-build-isolation --editable .

"${python}" - <<'EOF' || die "the environment does not work; remove ${VENV} and try again"
import sys

import espeakng_loader, espnet2, librosa, matplotlib, sentencepiece, soundfile
import sklearn, tensorboard, torch, torchaudio

if not any("espnet_ofa" in str(type(finder)) for finder in sys.meta_path):
    sys.exit("install: the start-up hook espnet_ofa.pth did not run")
where = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
print(f"install: ready: torch {torch.__version__} ({where}), ESPnet", end=" ")
import importlib.metadata

print(importlib.metadata.version("espnet"))
EOF
