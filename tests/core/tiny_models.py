"""Tiny random models and tokenizers for tests, made on the spot: no download, no fixture file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VOCABULARY = 320


def tokenizer(*, bos: bool = True, eos: bool = False, chat_template: str | None = None) -> Any:
    """A byte-level tokenizer of 256 bytes and three special tokens; BOS before and EOS after a text as asked."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[], unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(words[:3])
    single = " ".join([*(["<s>"] if bos else []), "$A", *(["</s>"] if eos else [])])
    bpe.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("<s>", 0), ("</s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = chat_template
    return made


def config(family: str, **changes: Any) -> Any:
    """A configuration of about 20,000 weights of a family that transformers knows by its model type."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    if family == "gpt2":
        sizes |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    elif family == "bloom":
        sizes |= {"hidden_size": 32, "n_layer": 2, "n_head": 4}
    elif family == "mamba":
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        sizes |= {"max_position_embeddings": 1024, "head_dim": 8, "num_key_value_heads": 2}
    if family == "opt":
        sizes |= {"ffn_dim": 64, "word_embed_proj_dim": 32, "num_key_value_heads": 4}
    return AutoConfig.for_model(family, **(sizes | changes))


def save(folder: Path, family: str, *, seed: int = 0, words: Any = None, **changes: Any) -> Path:
    """Save a random causal model of a family with a tokenizer. Weights are large enough that contexts matter."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(family, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return folder
