#!/usr/bin/env bash
# Makes .venv with exactly what the lock files pin; where that is done already it ends at once.
# Run as: make setup        (or: deploy/setup.sh [dev], with PYTHON naming a Python 3.11 or 3.12)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv/bin/python
say() { printf '\033[1m== %s\033[0m\n' "$*"; }

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
if [ "${1:-}" = dev ] && [ "$(cat .venv/.installed-dev 2>/dev/null)" != "$(fingerprint)" ]; then
  say "installing what tests and linters need (requirements-dev.lock)"
  pip install -qq --no-deps --require-hashes -r requirements-dev.lock
  fingerprint >.venv/.installed-dev
fi
