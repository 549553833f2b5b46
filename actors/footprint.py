"""How much memory a replica needs at least, before it is started: its weights, and the KV cache it was told to make."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

from actors.room import GIB
from pipeline.sections import GeneratorConfig, RewardConfig

_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_ASKED = {"float32": 32, "bfloat16": 16, "float16": 16, "half": 16}


def least_memory(config: GeneratorConfig | RewardConfig, *, on_gpu: bool) -> float:
    """Bytes, a lower bound; 0 where nothing is known (a hub name, an engine without weights).

    Floating-point weights count in the precision they are loaded in: ``dtype``, or float32 for ``auto`` on a CPU.
    """
    if not config.local_model:
        return 0.0
    dtype = str(getattr(config, "dtype", "auto"))
    bits = _ASKED.get(dtype) or (None if on_gpu else 32)
    cache: float | None = getattr(config, "kv_cache_gib", None)
    if cache is None:
        cache = 1.0 if config.engine == "vllm" and not on_gpu else 0.0  # vLLM's on a CPU, see actors/vllm_settings.py
    return _weights(Path(config.local_model).expanduser(), bits) + cache * GIB


def gpu_memory() -> float:
    """Bytes of this machine's largest GPU; infinite where ``nvidia-smi`` doesn't tell."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return max(float(line) for line in said.splitlines()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return math.inf


def _weights(directory: Path, bits: int | None) -> float:
    if not directory.is_dir():
        return 0.0
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        return float(sum(path.stat().st_size for path in directory.glob("*.bin")))
    return sum(_tensor(entry, bits) for path in files for entry in _header(path))


def _header(path: Path) -> list[dict[str, Any]]:
    """A safetensors file's tensors: eight bytes of length, then JSON; none if it is no such file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return []
        try:
            entries: dict[str, Any] = json.loads(file.read(length))
        except ValueError:
            return []
    return [entry for name, entry in entries.items() if name != "__metadata__"]


def _tensor(entry: dict[str, Any], bits: int | None) -> float:
    start, stop = entry["data_offsets"]
    stored = _BITS.get(entry["dtype"])
    if bits is None or stored is None:  # as it is, or quantized
        return float(stop - start)
    return float(math.prod(entry["shape"])) * bits / 8
