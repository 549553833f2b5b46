"""What the vLLM generator and the vLLM reward model share: options, engine arguments, start, stop and errors."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from actors.deathwatch import Deathwatch
from actors.model_files import locate
from actors.protocol import BadRequest, EngineDead
from pipeline.errors import ConfigError

_LAW = ("quantization", "kv_cache_dtype", "hf_overrides", "revision", "dtype")
"""The engine arguments that change what the model computes, not only how fast."""


@dataclass
class VllmOptions:
    """Options of a vLLM engine; None takes the default of the device.

    ``dtype``: ``auto`` is float32 on a CPU. ``max_model_len``: tokens of context. ``max_num_batched_tokens``: 16384
    on a GPU; on a CPU max(4096, context), since a prompt must be prefilled in one piece there (seeded requests kill
    the engine otherwise). ``block_size``: tokens per block of the prefix cache; 32 on a CPU, where vLLM's own 128
    would miss short prefixes. ``enable_prefix_caching``: None is off on a CPU. ``enforce_eager``: True on a CPU.
    ``kv_cache_gib``: GiB of KV cache; 1 on a CPU, what ``gpu_memory_utilization`` leaves on a GPU.
    ``chat_template``: path of a jinja file in place of the model's own. ``engine_args``: more arguments of vLLM's
    ``AsyncEngineArgs``; they win.
    """

    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    enable_prefix_caching: bool | None = True
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    enforce_eager: bool | None = None
    kv_cache_gib: float | None = None
    chat_template: str | None = None
    engine_args: dict[str, Any] = field(default_factory=dict)

    def law(self) -> str:
        """The options that change what the model computes, as text for a fingerprint; empty by default."""
        chosen = {k: self.engine_args[k] for k in _LAW if k in self.engine_args}
        if self.dtype != "auto":
            chosen.setdefault("dtype", self.dtype)
        return repr(sorted(chosen.items())) if chosen else ""


class VllmProcess:
    """One ``AsyncLLM`` with its child processes, from arguments to the answer of one request."""

    def __init__(self, section: str, options: VllmOptions, model: str, threads: int | None) -> None:
        self._section = section
        self._options = options
        self._model = model
        self._threads = threads
        self._engine: Any = None
        self._deathwatch: Deathwatch | None = None
        self._names = itertools.count()

    async def start(self, context: int, **arguments: Any) -> dict[str, Any]:
        """Starts the engine (half a minute or more) without blocking the event loop; returns what it resolved.

        ``arguments`` are the caller's ``AsyncEngineArgs``. Raises ``ConfigError`` for arguments that vLLM
        refuses, and ``EngineDead`` where its processes fail.
        """
        prepare_environment(self._threads)
        await asyncio.to_thread(self._create, context, arguments)
        manager = self._engine.engine_core.resources.engine_manager
        self._deathwatch = Deathwatch([process.pid for process in manager.processes])
        return resolved(self._engine)

    def _create(self, context: int, arguments: dict[str, Any]) -> None:
        # kept here, not returned: the thread's future would hold on to the engine after its end
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        model = locate(self._model, f"{self._section}.model")
        chosen = engine_arguments(self._options, context, on_cpu=current_platform.is_cpu())
        chosen |= {"model": model, **arguments, **self._options.engine_args}
        if current_platform.is_cpu() and chosen.get("distributed_executor_backend") == "uni":
            # else vLLM takes two processes all the same; the variable has no other bearing on an AsyncLLM
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        try:
            self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**chosen))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"vLLM cannot serve {self._section}.model={self._model!r} with these options: {error} "
                f"(see {self._section}.engine_args, {self._section}.max_model_len and {self._section}.kv_cache_gib; "
                f"{self._section}.engine=transformers does without vLLM)"
            ) from error
        except RuntimeError as error:  # its processes have said why on stderr
            raise EngineDead(
                f"vLLM did not start for {self._section}.model={self._model!r}: {error} Often there is too little "
                f"memory: see {self._section}.max_model_len (now {context}), {self._section}.kv_cache_gib and "
                f"{self._section}.gpu_memory_utilization"
            ) from error

    async def generate(self, token_ids: tuple[int, ...], parameters: Any) -> Any:
        """The final ``RequestOutput`` of one request. Raises ``BadRequest`` or ``EngineDead``."""
        return await self._only(self._engine.generate(_tokens(token_ids), parameters, str(next(self._names))))

    async def encode(self, token_ids: list[int], parameters: Any) -> Any:
        """The ``PoolingRequestOutput`` of one request. Raises ``BadRequest`` or ``EngineDead``."""
        return await self._only(self._engine.encode(_tokens(token_ids), parameters, str(next(self._names))))

    def progress(self) -> int:
        """Changes with every token that any request gets."""
        states = list(self._engine.output_processor.request_states.values()) if self._engine else []
        return sum(state.detokenizer.num_output_tokens() for state in states if state.detokenizer is not None)

    async def _only(self, outputs: AsyncGenerator[Any, None]) -> Any:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            last = None
            async for output in outputs:
                last = output
            return last
        except EngineDeadError as error:
            raise EngineDead(f"vLLM's engine has died: {error}") from error
        except (VLLMClientError, ValueError, TypeError) as error:
            raise BadRequest(str(error)) from error
        except Exception as error:  # vLLM hides the rest behind EngineGenerateError
            cause = error.__cause__ or error
            if isinstance(cause, ValueError | TypeError) and not self._engine.errored:
                raise BadRequest(str(cause)) from error
            raise EngineDead(f"vLLM failed: {type(cause).__name__}: {cause}") from error

    async def stop(self) -> None:
        """Ends the engine and its processes, within 20 s; requests in flight get ``EngineDead``. Twice is once."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if engine.output_handler is not None and not engine.output_processor.get_num_unfinished_requests():
            engine.output_handler.cancel()  # idle, or it would report the end as a failure
        await asyncio.to_thread(engine.shutdown, 20.0)  # vLLM's own 5 s end in a kill that leaks shared memory
        if self._deathwatch is not None:
            self._deathwatch.release()
        await asyncio.sleep(0)  # the sockets are closed on this loop
        engine.engine_core.resources.ctx.destroy(linger=0)  # vLLM leaves its zmq context open
        del engine
        gc.collect()  # its __del__ fails when the interpreter is what calls it


def _tokens(token_ids: tuple[int, ...] | list[int]) -> Any:
    """A ``TokensPrompt`` as vLLM's renderer would hand it on; it skips a thread hop and a deprecation."""
    from vllm.inputs import tokens_input

    return tokens_input(list(token_ids))


def prepare_environment(threads: int | None) -> None:
    """Environment that vLLM and its children read; what the user has set stays. ``threads``: per engine."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings restate the settings, which the run's summary holds
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines that share cores must not be bound to the same ones
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def engine_arguments(options: VllmOptions, context: int, *, on_cpu: bool) -> dict[str, Any]:
    """``AsyncEngineArgs`` as keywords. ``context``: tokens of one request at most."""
    chosen: dict[str, Any] = {
        "skip_tokenizer_init": True,  # token ids in, token ids out
        "dtype": "float32" if on_cpu and options.dtype == "auto" else options.dtype,
        "max_model_len": context,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens or (max(4096, context) if on_cpu else 16384),
        "enable_prefix_caching": not on_cpu if options.enable_prefix_caching is None else options.enable_prefix_caching,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": options.tensor_parallel_size,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if on_cpu:
        chosen["enable_chunked_prefill"] = False
        # vLLM's own choice are a scheduler and a worker that wait for each other by spinning, on the cores that compute
        chosen["distributed_executor_backend"] = "uni"
    if options.tensor_parallel_size > 1:
        chosen["distributed_executor_backend"] = "mp"  # inside a Ray actor vLLM would otherwise ask Ray for GPUs
    if options.block_size is not None or on_cpu:
        chosen["block_size"] = options.block_size or 32
    if options.kv_cache_gib is not None or on_cpu:
        chosen["kv_cache_memory_bytes"] = int((options.kv_cache_gib or 1.0) * 2**30)
    return chosen


def resolved(engine: Any) -> dict[str, Any]:
    """The settings that an engine runs with."""
    import torch
    import vllm
    from vllm.platforms import current_platform

    config = engine.vllm_config
    blocks = config.cache_config.num_gpu_blocks
    return {
        "engine": "vllm",
        "device": current_platform.get_device_name(),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "context": config.model_config.max_model_len,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "chunked_prefill": config.scheduler_config.enable_chunked_prefill,
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "block_size": config.cache_config.block_size,
        "kv_cache_tokens": blocks * config.cache_config.block_size if blocks else None,
        "tensor_parallel_size": config.parallel_config.tensor_parallel_size,
        "executor": config.parallel_config.distributed_executor_backend,
        "enforce_eager": config.model_config.enforce_eager,
        "quantization": config.model_config.quantization,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "vllm": vllm.__version__,
        "torch": torch.__version__,
    }
