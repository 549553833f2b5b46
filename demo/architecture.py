"""The architecture that both demo models share."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, PreTrainedTokenizerFast

from demo.tokenizer import MAX_LENGTH

GENERATOR_LAYERS = 4
REWARD_LAYERS = 6


def model_config(tokenizer: PreTrainedTokenizerFast, layers: int = GENERATOR_LAYERS, **changes: Any) -> LlamaConfig:
    """Layers of width 128: 0.16 million parameters each, with heads of 32 as vLLM's CPU needs."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        # At this width the library's 0.02 delays learning by hundreds of steps.
        initializer_range=0.08,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
        **changes,
    )
