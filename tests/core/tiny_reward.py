"""Tiny random reward models for tests: DeBERTa-v2 and decoders as sequence classifiers, with their tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.core import tiny_models

CHAT = (
    "{% for m in messages %}<s>[{{ m['role'] }}] {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>[assistant] {% endif %}"
)


def pair_tokenizer() -> Any:
    """A byte-level tokenizer of the form [CLS] question [SEP] answer [SEP], with token types and a pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[], unk_token="[UNK]"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(words[:4])
    bpe.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def config(family: str, **changes: Any) -> Any:
    """A configuration of a few thousand weights; decoders have no pad token unless one is given."""
    from transformers import AutoConfig

    if family in ("deberta-v2", "bert", "roberta"):
        sizes: dict[str, Any] = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"intermediate_size": 64, "max_position_embeddings": 512, "pad_token_id": 0}
        if family == "deberta-v2":  # as DeBERTa v3 is configured
            sizes |= {
                "type_vocab_size": 0,
                "relative_attention": True,
                "position_buckets": 32,
                "pos_att_type": "p2c|c2p",
            }
            sizes |= {"norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False}
            sizes |= {"max_relative_positions": -1}
        return AutoConfig.for_model(family, **(sizes | changes))
    return tiny_models.config(family, **({"pad_token_id": None} | changes))


def save(folder: Path, family: str, *, seed: int = 0, words: Any = None, labels: int = 1, **changes: Any) -> Path:
    """Save a random sequence classifier with a tokenizer. Weights are large enough that every token matters."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config(family, num_labels=labels, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
            elif name.endswith("bias"):  # a fresh bias is 0, and would not be missed
                parameter.normal_(0.0, 0.1)
    model.save_pretrained(folder)
    if words is None:
        decoder = family not in ("deberta-v2", "bert", "roberta")
        words = tiny_models.tokenizer(chat_template=CHAT) if decoder else pair_tokenizer()
    words.save_pretrained(folder)
    return folder
