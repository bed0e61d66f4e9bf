"""Small language models with random weights whose tokenizers know the words that answers are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tests.made_models import no_bars
from tests.made_tokenizers import TEMPLATES

SAID = [
    "yes Yes YES no No NO yes Yes YES no No NO",
    "yes\nYes\nYES\nno\nNo\nNO\n",
    " 1 2 3 4 5 6\n1\n2\n3\n4\n5\n6\n",
    "Would the exchange between the lines be a useful demonstration for training an assistant? Options: Answer:",
    "Name a colour that I like. Blue. Instruction: Response: user assistant system ### - ####",
]
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_level(template: str | None) -> Any:
    """A byte-level tokenizer, in which "yes" and " yes" differ; `template` is the name of a chat template."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=CHATML, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    made.train_from_iterator(SAID * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>")
    if template is not None:
        tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    return tokenizer


def metaspace(*, stop: bool) -> Any:
    """A tokenizer as sentencepiece's, in which a word and the space before it are one; `stop` ends texts with </s>."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<pad>", "</s>", "<unk>", "<s>"], show_progress=False, min_frequency=1
    )
    made.train_from_iterator(SAID * 3, trainer)
    pattern = "$A </s>" if stop else "<s> $A"
    made.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 3), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>"
    )


def answering_folder(folder: Path, tokenizer: Any, *, window: int = 256, seed: int = 0) -> Path:
    """A causal language model of two layers with this tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=window,
        initializer_range=0.3,
        pad_token_id=None,
    )
    with no_bars():
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def t5_folder(folder: Path, *, window: int = 128, seed: int = 0) -> Path:
    """A T5 of two layers in the encoder and two in the decoder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = metaspace(stop=True)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        n_positions=window,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    with no_bars():
        T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
