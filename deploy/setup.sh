#!/usr/bin/env bash
# Makes .venv with exactly what the lock files pin; where that is done already it ends at once.
# Run as: make setup        (or: deploy/setup.sh [dev] [onnx] [gptq] [benchmarks] [kernels], PYTHON naming a Python 3.11 or 3.12)
# gptq makes .venv-gptq, which has all that .venv has and what 4-bit exports need beside. kernels makes .venv-kernels, a
# folder with Triton alone: Unsloth and others behave otherwise where they find it, and a CPU set does without.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv/bin/python
say() { printf '\033[1m== %s\033[0m\n' "$*"; }

for each in "$@"; do
  case $each in
  dev | onnx | gptq | benchmarks | kernels) ;;
  *)
    echo "setup: there is no part '$each'; there are dev, onnx, gptq, benchmarks and kernels." >&2
    exit 2
    ;;
  esac
done

fingerprint() { cat pyproject.toml requirements-*.lock deploy/setup.sh | sha256sum | cut -c1-16; }

if [ ! -x $venv ]; then
  for candidate in "$python" python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      found=$candidate
      break
    fi
  done
  if [ -z "${found:-}" ]; then
    echo "setup: Python 3.11 or 3.12 is needed; '$python' is $("$python" -V 2>&1). Run: make setup PYTHON=/path/to/python3.12" >&2
    exit 1
  fi
  say "making .venv with $("$found" -V)"
  "$found" -m venv .venv
fi

pip() { $venv -m pip --disable-pip-version-check "$@"; }

if [ "$(cat .venv/.installed 2>/dev/null)" != "$(fingerprint)" ]; then
  version=$(sed -n 's/^ *"torch==\(.*\)",/\1/p' pyproject.toml)
  if [ "$($venv -c 'import torch; print(torch.__version__.split("+")[0])' 2>/dev/null)" != "$version" ]; then
    say "installing torch $version"
    pip install -qq "torch==$version" # with its dependencies: only it knows which CUDA packages it wants
  fi
  kind=$($venv -W ignore -c 'import torch; print("gpu" if torch.version.cuda else "cpu")')
  say "installing the $kind set (requirements-$kind.lock)"
  pip install -qq --no-deps --require-hashes -r "requirements-$kind.lock"
  pip install -qq --no-deps --no-build-isolation --editable .
  fingerprint >.venv/.installed
fi
# What is wanted beside the set; what was once installed is kept at the versions of its lock file.
beside() {
  if [ "$(cat ".venv/.installed-$1" 2>/dev/null)" != "$(fingerprint)" ]; then
    say "installing $2 (requirements-$1.lock)"
    pip install -qq --no-deps --require-hashes -r "requirements-$1.lock"
    fingerprint >".venv/.installed-$1"
  fi
}
overlay() {
  if [ "$(cat .venv-gptq/.installed 2>/dev/null)" != "$(fingerprint)" ]; then
    say "making .venv-gptq (requirements-gptq.lock)"
    umask 022 # a service's user reads what root has made
    $venv -m venv --clear --without-pip .venv-gptq
    packages() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
    echo "import site; site.addsitedir('$(packages $venv)')" >"$(packages .venv-gptq/bin/python)/beside.pth"
    pip --python .venv-gptq/bin/python install -qq --no-deps --require-hashes -r requirements-gptq.lock
    fingerprint >.venv-gptq/.installed
  fi
}
kernels() {
  if [ "$(cat .venv-kernels/.installed 2>/dev/null)" != "$(sha256sum <requirements-kernels.lock)" ]; then
    say "making .venv-kernels (requirements-kernels.lock)"
    rm -rf .venv-kernels
    pip install -qq --no-deps --require-hashes --target .venv-kernels -r requirements-kernels.lock
    sha256sum <requirements-kernels.lock >.venv-kernels/.installed
  fi
}
if [[ " $* " == *" dev "* ]]; then beside dev "what tests and linters need"; fi
if [[ " $* " == *" onnx "* || -f .venv/.installed-onnx ]]; then beside onnx "what exports as ONNX need"; fi
if [[ " $* " == *" benchmarks "* || -f .venv/.installed-benchmarks ]]; then beside benchmarks "what benchmarks need"; fi
if [[ " $* " == *" gptq "* || -d .venv-gptq ]]; then overlay; fi
if [[ " $* " == *" kernels "* ]]; then kernels; fi
