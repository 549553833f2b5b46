"""Tiny random models, made on the fly: a Llama of 0.2 M parameters, alone or with a reward head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>", "<|turn|>")
PAD, BOS, EOS, UNK, USER, ASSISTANT, SYSTEM, TURN = range(8)
WORDS = tuple(f"w{i}" for i in range(120))
VOCABULARY = len(SPECIALS) + len(WORDS)
CONTEXT = 256

TEMPLATE = """{{ bos_token }}{% for m in messages %}\
{% if m.role == 'tool' %}{{ raise_exception('tools are not supported') }}{% endif %}\
<|{{ m.role }}|> {{ m.content }} <|turn|>{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def save_tokenizer(directory: Path, template: str | None = TEMPLATE, *, bos: bool = True) -> None:
    """A word-level tokenizer that puts a BOS before every text (unless ``bos`` is off)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(SPECIALS + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIALS[4:]),
        chat_template=template,
    )
    fast.save_pretrained(directory)


def llama_config(**changes: Any) -> Any:
    """Two layers of width 64, two heads of 32, wide initial weights (so that the next token is not nearly uniform)."""
    from transformers import LlamaConfig

    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.2,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "torch_dtype": "float32",
    }
    return LlamaConfig(**(settings | changes))


def save_generator(directory: Path, *, seed: int = 0, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A random language model; ``<|turn|>`` ends a turn, as only its generation configuration says."""
    import torch
    from transformers import GenerationConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama_config(**changes))
    # a temperature and a top_k that engines must not pick up
    model.generation_config = GenerationConfig(
        eos_token_id=[EOS, TURN], pad_token_id=PAD, do_sample=True, temperature=0.1, top_k=1, top_p=0.5
    )
    model.save_pretrained(directory)
    save_tokenizer(directory, template)
    return directory


def save_reward(directory: Path, *, seed: int = 1, template: str | None = TEMPLATE, **changes: Any) -> Path:
    """A random sequence classifier with one logit (``num_labels`` changes that)."""
    import torch
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(seed)
    LlamaForSequenceClassification(llama_config(**({"num_labels": 1} | changes))).save_pretrained(directory)
    save_tokenizer(directory, template)
    return directory
