"""Tiny random T5 models for tests, with a tokenizer that parts texts as T5's does and knows Yes and No."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any


def tokenizer(*, answers: tuple[str, ...] = ("Yes", "No")) -> Any:
    """A unigram tokenizer of single characters and the given whole words, with </s> after every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # Whole words are dearer than nothing and cheaper than their letters.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [("▁" + word, -3.0) for word in (*answers, "question:", "response:", "dialogue", "history:")]
    pieces += [(letter, -4.0) for letter in string.printable.strip()]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    unigram.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    unigram.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    unigram.add_special_tokens(["<pad>", "</s>", "<unk>"])
    unigram.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=unigram, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def config(family: str = "t5", **changes: Any) -> Any:
    """A configuration of about 30,000 weights."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {"vocab_size": 128, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    sizes |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return AutoConfig.for_model(family, **(sizes | changes))


def save(folder: Path, family: str = "t5", *, seed: int = 0, words: Any = None, **changes: Any) -> Path:
    """Save a random T5. Weights are large enough that every token of the text moves the answer."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    torch.manual_seed(seed)
    model = AutoModelForSeq2SeqLM.from_config(config(family, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "shared" not in name and "lm_head" not in name:
                parameter.mul_(2.0)
    model.save_pretrained(folder)
    (words or tokenizer()).save_pretrained(folder)
    return folder
