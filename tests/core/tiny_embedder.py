"""A tiny random sentence-transformers folder in the layout of all-MiniLM-L6-v2, made on the spot."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tokenizer(*, max_length: int = 64) -> Any:
    """WordPiece of single characters, with [CLS] before and [SEP] after a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = string.ascii_lowercase + string.digits
    words = [*SPECIAL, *string.punctuation, *letters, *(f"##{one}" for one in letters)]
    pieces = Tokenizer(models.WordPiece(vocab={word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.add_special_tokens(list(SPECIAL))
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=max_length, **names)


def save(
    folder: Path,
    *,
    seed: int = 0,
    dimensions: int = 32,
    max_length: int = 64,
    positions: int = 128,
    vocabulary: int = 128,
    pooling: str = "mean",
    normalize: bool = True,
    prompt: str = "",
) -> Path:
    """Save a random BERT of two layers with pooling, and normalisation if asked. Weights are large enough to matter."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = {"hidden_size": dimensions, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=vocabulary, max_position_embeddings=positions, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer(max_length=max_length).save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    modes = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    (folder / "1_Pooling").mkdir()
    pooled: dict[str, Any] = {"word_embedding_dimension": dimensions} | {
        key: mode == pooling for mode, key in modes.items()
    }
    write(folder / "modules.json", listed)
    write(folder / "1_Pooling" / "config.json", pooled)
    write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    versions = {"__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}}
    named = {"prompts": {"all": prompt}, "default_prompt_name": "all"} if prompt else {}
    write(folder / "config_sentence_transformers.json", versions | named)
    return folder


def write(path: Path, value: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
