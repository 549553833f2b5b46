"""What the two ``transformers`` engines share: options, devices, loading, and running out of memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from actors.chat_template import ModelText
from actors.model_files import locate
from pipeline.errors import ConfigError

_DTYPES = ("auto", "float32", "bfloat16", "float16")

# ``from_pretrained`` swaps ``torch.nn.init`` functions and ``PreTrainedModel.tie_weights`` while it runs, for the whole
# process. Two loads at once put them back in the wrong order, and later models get random heads, without any error.
_loading = threading.Lock()


@dataclass
class TorchOptions:
    """Options of a ``transformers`` engine; None takes the default of the device.

    ``dtype``: ``auto`` is float32 on a CPU and the checkpoint's own on a GPU. ``max_batch_tokens``: rows times the
    longest row, padding included; 65536 on a GPU, on a CPU 16384 to generate and 2048 to score. Running out of
    memory halves it for good. ``max_model_len``: tokens of context. ``chat_template``: path of a jinja file in place
    of the model's own.
    """

    dtype: str = "auto"
    max_model_len: int | None = None
    max_batch_tokens: int | None = None
    chat_template: str | None = None

    def law(self) -> str:
        """The options that change what the model computes, as text for a fingerprint; empty by default."""
        return "" if self.dtype == "auto" else repr([("dtype", self.dtype)])


@dataclass
class Loaded:
    """A model on its device, ready for inference."""

    model: Any
    device: Any
    max_batch_tokens: int
    settings: dict[str, Any]
    """As resolved, for the run's summary."""


def load(
    factory_name: str, text: ModelText, options: TorchOptions, threads: int | None, cpu_batch_tokens: int
) -> Loaded:
    """The model that ``transformers`` class ``factory_name`` makes of the checkpoint, on CUDA if there is any.

    ``cpu_batch_tokens``: the default of ``max_batch_tokens`` on a CPU.

    Raises ``ConfigError`` for an unknown dtype, and for weights that the checkpoint lacks (they would be random).
    """
    import torch
    import transformers

    if options.dtype not in _DTYPES:
        raise ConfigError(f"{text.section}.dtype={options.dtype!r}; use one of {', '.join(_DTYPES)}")
    transformers.utils.logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extra = {"attn_implementation": "eager"} if _caps_attention(text.load_config()) else {}
    dtype = "float32" if options.dtype == "auto" and device.type == "cpu" else options.dtype
    try:
        with _loading:
            model, report = getattr(transformers, factory_name).from_pretrained(
                locate(text.model, f"{text.section}.model"),
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                trust_remote_code=text.trust_remote_code,
                output_loading_info=True,
                **extra,
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"{text.section}.model={text.model!r} cannot be loaded: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(f"{text.section}.model={text.model!r} has no weights for {', '.join(missing[:5])}")
    budget = options.max_batch_tokens or (65536 if device.type == "cuda" else cpu_batch_tokens)
    model = model.to(device).eval()
    return Loaded(model, device, budget, _settings(model, device, budget))


def _caps_attention(config: Any) -> bool:
    """Whether attention scores are soft-capped (Gemma 2), which SDPA leaves out without a word; "eager" computes it."""
    return getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None


def _settings(model: Any, device: Any, budget: int) -> dict[str, Any]:
    import torch
    import transformers

    return {
        "engine": "transformers",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config.get_text_config()._attn_implementation,
        "max_batch_tokens": budget,
        "threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU's allocator, had too little memory."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_memory() -> None:
    """Gives cached device memory back, before a smaller try."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
