"""Small models with random weights, saved as folders and files: a causal one, sentence encoders, a GGUF file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.made_tokenizers import tokenizer_for

WIDTH, WINDOW = 32, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!"


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Without the progress bars of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def causal_folder(folder: Path, *, seed: int = 0, window: int = WINDOW) -> Path:
    """A causal language model of two layers, with a tokenizer that has a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=window,
        initializer_range=0.5,
    )
    with no_bars():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer_for("llama3").save_pretrained(folder)
    return folder


def bert_folder(folder: Path, *, seed: int = 0) -> Path:
    """A bidirectional encoder of two layers without any pooling of its own, and a WordPiece tokenizer of letters."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    BertTokenizerFast(vocab=vocabulary, model_max_length=WINDOW).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.5,
    )
    with no_bars():
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def sentence_folder(folder: Path, *, seed: int = 0, prompt: str = "", include_prompt: bool = True) -> Path:
    """A sentence encoder: mean pooling, a projection to 24 numbers, unit length; perhaps a default prompt."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bert = bert_folder(folder.with_name(f"{folder.name}-bert"), seed=seed)
    torch.manual_seed(seed)
    with no_bars():
        modules = [
            Transformer(str(bert)),
            Pooling(WIDTH, "mean", include_prompt=include_prompt),
            Dense(WIDTH, 24),
            Normalize(),
        ]
        prompts: dict[str, Any] = {"prompts": {"row": prompt}, "default_prompt_name": "row"} if prompt else {}
        made = SentenceTransformer(modules=modules, device="cpu", **prompts)
        made.save_pretrained(str(folder), create_model_card=False)
    return folder


def gguf_file(path: Path, *, seed: int = 0) -> Path:
    """A Llama of one layer as a GGUF file, in float32, with a byte-level tokenizer of single bytes."""
    from gguf import GGUFWriter
    from tokenizers.pre_tokenizers import ByteLevel

    rng = np.random.default_rng(seed)
    tokens = ["<unk>", "<s>", "</s>", *sorted(ByteLevel.alphabet()), "ab"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([2, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}</s>{% endfor %}")
    shapes = {"token_embd": (len(tokens), WIDTH), "output_norm": (WIDTH,), "output": (len(tokens), WIDTH)}
    shapes |= {f"blk.0.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (48, WIDTH), "blk.0.ffn_up": (48, WIDTH), "blk.0.ffn_down": (WIDTH, 48)}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
