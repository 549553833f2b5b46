"""Tiny random models of the families that Raylign is certified for: generators, decoder and encoder reward models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.actors import tiny_models as tiny

WINDOW = 48
"""Tokens that a layer with a sliding window sees; many texts of the tests are longer."""

_COMMON: dict[str, Any] = {
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
_DECODER = _COMMON | {"num_key_value_heads": 1, "head_dim": 32}
_GEMMA = _DECODER | {
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 32,
    "layer_types": ["sliding_attention", "full_attention"],
}
_DEBERTA = _COMMON | {
    "relative_attention": True,
    "position_buckets": 32,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "pooler_hidden_size": 64,
}
_MODERNBERT = _COMMON | {
    "cls_token_id": tiny.BOS,
    "sep_token_id": tiny.EOS,
    "global_attn_every_n_layers": 2,
    "local_attention": WINDOW,
    "initializer_cutoff_factor": 10.0,
}


@dataclass(frozen=True)
class Family:
    """Classes of ``transformers`` by name, and the settings of a tiny configuration.

    ``encoder``: its tokenizer closes texts, and has no chat template. ``attention``: what a model card asks for.
    """

    config: str
    reward: str
    settings: dict[str, Any] = field(default_factory=dict)
    generator: str = ""
    encoder: bool = False
    attention: str | None = None


FAMILIES = {
    "llama": Family("LlamaConfig", "LlamaForSequenceClassification", _DECODER, "LlamaForCausalLM"),
    # biases in attention; the output shares the embeddings of the input
    "qwen2": Family(
        "Qwen2Config", "Qwen2ForSequenceClassification", _DECODER | {"tie_word_embeddings": True}, "Qwen2ForCausalLM"
    ),
    # norms of queries and keys
    "qwen3": Family(
        "Qwen3Config", "Qwen3ForSequenceClassification", _DECODER | {"tie_word_embeddings": True}, "Qwen3ForCausalLM"
    ),
    # a sliding window in every other layer; attention scores and output logits are capped; tied, scaled embeddings
    "gemma2": Family(
        "Gemma2Config",
        "Gemma2ForSequenceClassification",
        _GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
        "Gemma2ForCausalLM",
        attention="eager",
    ),
    # the same window, with a rotary base of its own
    "gemma3": Family("Gemma3TextConfig", "Gemma3TextForSequenceClassification", _GEMMA, "Gemma3ForCausalLM"),
    # token types tell prompt and response apart
    "deberta-v2": Family(
        "DebertaV2Config", "DebertaV2ForSequenceClassification", _DEBERTA | {"type_vocab_size": 2}, encoder=True
    ),
    # as DeBERTa-v3 checkpoints are: only a separator tells them apart
    "deberta-v3": Family(
        "DebertaV2Config", "DebertaV2ForSequenceClassification", _DEBERTA | {"type_vocab_size": 0}, encoder=True
    ),
    "modernbert-cls": Family(
        "ModernBertConfig",
        "ModernBertForSequenceClassification",
        _MODERNBERT | {"classifier_pooling": "cls"},
        encoder=True,
    ),
    "modernbert-mean": Family(
        "ModernBertConfig",
        "ModernBertForSequenceClassification",
        _MODERNBERT | {"classifier_pooling": "mean"},
        encoder=True,
    ),
}


def save_generator(family: str, directory: Path, *, seed: int = 0, template: str | None = tiny.TEMPLATE) -> Path:
    """A random language model of a family."""
    return _save(family, FAMILIES[family].generator, directory, seed, template, {})


def save_reward(family: str, directory: Path, *, seed: int = 1, **changes: Any) -> Path:
    """A random reward model of a family, with one logit (``num_labels`` changes that)."""
    template = None if FAMILIES[family].encoder else tiny.TEMPLATE
    return _save(family, FAMILIES[family].reward, directory, seed, template, {"num_labels": 1} | changes)


def _save(family: str, name: str, directory: Path, seed: int, template: str | None, changes: dict[str, Any]) -> Path:
    import torch
    import transformers

    kind = FAMILIES[family]
    torch.manual_seed(seed)
    model = getattr(transformers, name)(getattr(transformers, kind.config)(**(kind.settings | changes)))
    for parameter in model.parameters():  # biases and norms too: at 0 and 1 no test would miss them
        torch.nn.init.normal_(parameter, parameter.mean().item(), 0.2)
    model.save_pretrained(directory)
    if kind.encoder:
        save_encoder_tokenizer(directory)
    else:
        tiny.save_tokenizer(directory, template)
    if family == "qwen2":
        _mark_words_as_added(directory)
    return directory


def _mark_words_as_added(directory: Path) -> None:
    """``AutoTokenizer`` rebuilds any tokenizer of a Qwen2 model as byte-level BPE; added tokens stay what they are."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.add_tokens(list(tiny.WORDS))
    tokenizer.save_pretrained(directory)


def save_encoder_tokenizer(directory: Path) -> None:
    """A word-level tokenizer of ``<s> prompt </s> response </s>``, with token types 0 and 1; no BOS, no template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(tiny.SPECIALS + tiny.WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1",
        special_tokens=[("<s>", tiny.BOS), ("</s>", tiny.EOS)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(directory)
