#!/usr/bin/env bash
# Rewrites the lock files from pyproject.toml. Needs uv; nothing else in the project does.
#   cpu.lock   everything, with vLLM's CPU build
#   base.lock  the same without vLLM, for machines that have no wheel of it
#   gpu.lock   everything, with vLLM's CUDA build
# They are complete, and installed with `pip install --no-deps`: what a CPU machine must not get
# (CUDA libraries, and the CUDA builds of torchvision, torchaudio and torchcodec, beside which
# `import transformers` fails under a CPU build of torch) is left out here, once.
# What is locked already stays as it is where it can; delete a lock file first to have newer versions.
# torch itself is named without its local label (2.13.0 instead of 2.13.0+cpu) and installed by the Makefile.
# Of what lm_eval asks for they hold what its IFEval checks import, as the project uses nothing else of it:
# `python -W error -c "import lm_eval.tasks.ifeval.utils"` works without the packages that are left out below, which its
# other tasks and its reports need. (transformers would import scikit-learn wherever it is: 100 MB in every process.)
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { # LOCK [uv options...]
  local lock=$1; shift
  if [ -f "$lock" ]; then cp "$lock" "$lock.tmp"; fi
  uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --no-header --no-annotate "$@" -o "$lock.tmp"
  # Every line is for the platforms of [tool.uv] environments; what is left of a marker is what differs among them.
  local cpython="platform_python_implementation == 'CPython' and sys_platform == 'linux'"
  local both="((platform_machine == 'aarch64' and $cpython) or (platform_machine == 'x86_64' and $cpython))"
  sed -i "s/ and $both//; s/python_full_version < '3.15' and $both//; s/ and python_full_version < '3.15'//; s/ ; \(python_full_version < '3.15'\)\?$//" "$lock.tmp"
  mv "$lock.tmp" "$lock"
}
for_cpu() { sed -i -E '/^(nvidia-|cuda-|triton|torch(vision|audio|codec)?==)/d' "$1"; }

never() { printf "%s; sys_platform == 'never'\n" "$@"; }

unused=$(mktemp) override=$(mktemp)
never evaluate more-itertools pytablewriter rouge-score scikit-learn sqlitedict word2number > "$unused"
{ echo 'torch==2.13.0'; never torchvision torchaudio torchcodec; cat "$unused"; } > "$override"
extras=(--extra s3 --extra ifeval --extra test)
compile requirements/cpu.lock --extra cpu "${extras[@]}" --override "$override"
for_cpu requirements/cpu.lock
compile requirements/base.lock "${extras[@]}" --override "$override" --constraint requirements/cpu.lock
for_cpu requirements/base.lock
compile requirements/gpu.lock --extra gpu "${extras[@]}" --override "$unused"
rm -f "$unused" "$override"
wc -l requirements/*.lock
