"""Tiny random models of the families that Raylign is certified for: generators, decoder and encoder reward models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.actors import tiny_models as tiny

WIDTH = {
    "vocab_size": tiny.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": tiny.CONTEXT,
    "initializer_range": 0.2,
    "pad_token_id": tiny.PAD,
    "bos_token_id": tiny.BOS,
    "eos_token_id": tiny.EOS,
}
DECODER = WIDTH | {"num_key_value_heads": 1, "head_dim": 32}
WINDOW = 48
"""Tokens that a layer with a sliding window sees; texts of the tests are longer."""


@dataclass(frozen=True)
class Family:
    """Classes of ``transformers`` by name, and what a tiny configuration of them adds to the common one."""

    config: str
    generator: str
    reward: str
    settings: dict[str, Any] = field(default_factory=dict)

    def make_config(self, **changes: Any) -> Any:
        """A configuration of two layers, 64 wide."""
        import transformers

        return getattr(transformers, self.config)(**(self.settings | changes))


GEMMA2 = {"sliding_window": WINDOW, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0}
FAMILIES = {
    "llama": Family("LlamaConfig", "LlamaForCausalLM", "LlamaForSequenceClassification", DECODER),
    # biases in attention, and the output shares the input's embeddings
    "qwen2": Family(
        "Qwen2Config", "Qwen2ForCausalLM", "Qwen2ForSequenceClassification", DECODER | {"tie_word_embeddings": True}
    ),
    "qwen3": Family(
        "Qwen3Config", "Qwen3ForCausalLM", "Qwen3ForSequenceClassification", DECODER | {"tie_word_embeddings": True}
    ),
    # every other layer sees a window; attention and output logits are soft-capped, embeddings are scaled and tied
    "gemma2": Family(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        "Gemma2ForSequenceClassification",
        DECODER | GEMMA2 | {"final_logit_softcapping": 5.0, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gemma3": Family(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        "Gemma3TextForSequenceClassification",
        DECODER
        | {
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}
