#!/usr/bin/env bash
# Makes the lock files from pyproject.toml: one resolution, with hashes; the CPU set is the GPU set without what only
# CUDA needs. Run as: make lock        (needs uv on the PATH; the versions change only when this is run)
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# unsloth asks for a certifi that is not out; its xformers is built for another torch and would not load
printf '%s\n' "certifi==2026.10.18" "xformers ; sys_platform == 'never'" >"$work/overrides.txt"
compile() {
  uv pip compile --quiet --python-version 3.11 --override "$work/overrides.txt" --generate-hashes \
    --no-annotate --no-header "$@"
}
compile --universal pyproject.toml --group model --group gpu -o "$work/gpu.lock"
compile --universal --group dev --constraint "$work/gpu.lock" -o "$work/dev.lock"
# not universal: uv would ask for wheels of Pythons that the application does not run on, and there are none
compile --python-platform x86_64-manylinux_2_28 pyproject.toml --extra onnx --constraint "$work/gpu.lock" -o "$work/onnx.lock"
compile --python-platform x86_64-manylinux_2_28 --group gptq --constraint "$work/gpu.lock" -o "$work/gptq.lock"
compile --python-platform x86_64-manylinux_2_28 pyproject.toml --extra benchmarks --constraint "$work/gpu.lock" \
  -o "$work/benchmarks.lock"
python3 - "$work" <<'PY'
import re, sys
from pathlib import Path

work = Path(sys.argv[1])
HEAD = {
    "gpu": "# The GPU set: for a machine whose torch is built for CUDA. Made by deploy/lock.sh.\n",
    "cpu": "# The CPU set: the GPU set without CUDA's own packages, torchvision among them (beside a CPU torch it\n"
    "# breaks `import unsloth`). torch is installed first, by itself: see deploy/setup.sh. Made by deploy/lock.sh.\n",
    "onnx": "# What exports as ONNX need beside either set (`make onnx`). Made by deploy/lock.sh.\n",
    "benchmarks": "# What benchmarks in reports need beside either set (`make benchmarks`). Made by deploy/lock.sh.\n",
    "dev": "# What tests and linters need beside either set. Made by deploy/lock.sh.\n",
    "gptq": "# What 4-bit exports need beside either set, in .venv-gptq. Made by deploy/lock.sh.\n",
    "kernels": "# What tests of the GPU's kernels need where no GPU is, in .venv-kernels: the GPU set's Triton. "
    "Made by deploy/lock.sh.\n",
}
CUDA_ONLY = r"(torch==|torchvision|torchaudio|nvidia-(?!ml-py)|cuda-|triton|timm)"

def blocks(path):
    text = path.read_text().replace(" ; platform_machine == 'x86_64' and sys_platform == 'linux' \\", " \\")
    found = re.findall(r"^[A-Za-z].*?(?=^[A-Za-z]|\Z)", text, re.S | re.M)
    return [block for block in found if "'never'" not in block]

gpu = blocks(work / "gpu.lock")
names = {b.split("==")[0] for b in gpu}
sets = {
    "gpu": gpu,
    "cpu": [b for b in gpu if not re.match(CUDA_ONLY, b)],
    "onnx": [b for b in blocks(work / "onnx.lock") if b.split("==")[0] not in names],
    "benchmarks": [b for b in blocks(work / "benchmarks.lock") if b.split("==")[0] not in names],
    "dev": [b for b in blocks(work / "dev.lock") if b.split("==")[0] not in names],
    "gptq": [b for b in blocks(work / "gptq.lock") if b.split("==")[0] not in names],
    "kernels": [b for b in gpu if b.startswith("triton==")],
}
for name, packages in sets.items():
    Path(f"requirements-{name}.lock").write_text(HEAD[name] + "".join(packages))
    print(f"requirements-{name}.lock: {len(packages)} packages")
PY
