"""Small reward models with random weights: a causal one of two layers, and a bidirectional one."""

from __future__ import annotations

from pathlib import Path

from tests.made_models import WIDTH, no_bars
from tests.made_tokenizers import tokenizer_for


def reward_folder(folder: Path, *, seed: int = 0, window: int = 96, outputs: int = 1, padding: int | None = 0) -> Path:
    """A Llama for sequence classification, with a tokenizer that has a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=window,
        initializer_range=0.3,
        num_labels=outputs,
        pad_token_id=padding,
    )
    with no_bars():
        LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer_for("llama3").save_pretrained(folder)
    return folder


def bidirectional_folder(folder: Path, *, seed: int = 0, window: int = 96) -> Path:
    """A BERT for sequence classification, whose tokens see later ones."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=window,
        initializer_range=0.3,
        num_labels=1,
    )
    with no_bars():
        BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer_for("llama3").save_pretrained(folder)
    return folder
