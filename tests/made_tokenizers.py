"""Small tokenizers with the special tokens and chat templates of known model families, trained on a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "chat_templates"
TEXT = [
    "Name a colour that I like. Blue.",
    "Another? Red, I think. Be brief.",
    "system user assistant model final 👩‍🚀",
]

IM = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
H3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"]
OSS = ["<|startoftext|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"]
DS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁end｜>"]
TURN = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
CO = ["<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"]
CO += ["<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"]
GLM = ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "<|endoftext|>"]
PHI = ["<s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"]

# template: special tokens, bos, eos
FAMILIES: dict[str, tuple[list[str], str | None, str]] = {
    "chatml_uncued": (IM, None, "<|im_end|>"),
    "cohere2": (CO, "<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "deepseekv3": (DS, DS[0], DS[1]),
    "gemma": (TURN, "<bos>", "<eos>"),
    "gemma3": (TURN, "<bos>", "<eos>"),
    "glm4moe": (GLM, None, "<|endoftext|>"),
    "gptoss": (OSS, OSS[0], "<|return|>"),
    "lfm2_2_5": ([*IM, "<|startoftext|>"], "<|startoftext|>", "<|im_end|>"),
    "llama2": (["<s>", "</s>"], "<s>", "</s>"),
    "llama3": (H3, H3[0], "<|eot_id|>"),
    "llama3_2": (H3, H3[0], "<|eot_id|>"),
    "mistral3": (["<s>", "</s>", "[INST]", "[/INST]"], "<s>", "</s>"),
    "phi3": (PHI, "<s>", "<|endoftext|>"),
    "qwen2_5": (IM, None, "<|im_end|>"),
    "qwen3": ([*IM, "<think>", "</think>"], None, "<|im_end|>"),
    "qwen3_5_think": ([*IM, "<think>", "</think>"], None, "<|im_end|>"),
    "qwen3_training": ([*IM, "<think>", "</think>"], None, "<|im_end|>"),
    "smollm2": (IM, "<|im_start|>", "<|im_end|>"),
    "vicuna": (["<s>", "</s>"], "<s>", "</s>"),
    "zephyr": (["<s>", "</s>"], "<s>", "</s>"),
}


def byte_level(specials: list[str], *, trim: bool = False) -> Tokenizer:
    """A byte-level BPE as Llama-3, Qwen and gpt-oss have it; `trim`: offsets without white space, as Llama-3's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    if trim:
        made.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT * 3, trainer)
    return made


def with_spaces(specials: list[str]) -> Tokenizer:
    """A BPE over text in which ▁ stands for a space, unknown characters in bytes, as Gemma's and Mistral's."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    pieces = ["<unk>", *specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(TEXT * 3, trainers.BpeTrainer(vocab_size=450, special_tokens=pieces, show_progress=False))
    return made


def tokenizer_for(name: str, made: Tokenizer | None = None) -> Any:
    specials, bos, eos = FAMILIES[name]
    given = {"bos_token": bos} if bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made or byte_level(specials), eos_token=eos, **given)
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    return tokenizer
