"""Masks of answer tokens: hand-made truth for many template families, hard contents, truncation, refusals."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from tokenizers import pre_tokenizers

from coretune import chat_template
from coretune.chat import PLAIN, Encoded, Refused, chat_tokenizer, count_tokens, encode, tokenizer_digest
from coretune.chat_spans import render
from coretune.errors import ModelError
from coretune.pool import Example, Message, content_key
from tests.made_tokenizers import DS, FAMILIES, byte_level, tokenizer_for, with_spaces

U1, A1 = Message("user", "Name a colour."), Message("assistant", "Blue.")
U2, A2 = Message("user", "Another?"), Message("assistant", "Red, I think.")
S = Message("system", "Be brief.")
SINGLE, MULTI, SYSTEM = (U1, A1), (U1, A1, U2, A2), (S, U1, A1)

QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
IM1 = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"
IM2 = "\n<|im_start|>user\nAnother?<|im_end|>\n<|im_start|>assistant\n"
IMS = "<|im_start|>system\nBe brief.<|im_end|>\n"
HDR = "<|start_header_id|>{}<|end_header_id|>\n\n"
H_U1 = HDR.format("user") + "Name a colour.<|eot_id|>" + HDR.format("assistant")
H_U2 = HDR.format("user") + "Another?<|eot_id|>" + HDR.format("assistant")
H32 = "<|begin_of_text|>" + HDR.format("system") + "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
G1 = "<start_of_turn>user\nName a colour.<end_of_turn>\n<start_of_turn>model\n"
G2 = "\n<start_of_turn>user\nAnother?<end_of_turn>\n<start_of_turn>model\n"
GS = "<bos><start_of_turn>user\nBe brief.\n\nName a colour.<end_of_turn>\n<start_of_turn>model\n"
OSS_HEAD = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
    "Current date: 2024-07-26\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
)
OSS1 = "<|start|>user<|message|>Name a colour.<|end|><|start|>assistant"
OSS2 = "<|start|>user<|message|>Another?<|end|><|start|>assistant"
CO_U = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
CO_U += "<|START_RESPONSE|>"

# (family, conversation): the whole text, written by hand, with the answers in ⟦ ⟧; a leading … stands for any beginning
TRUTH: dict[tuple[str, str], str] = {
    ("qwen2_5", "single"): QWEN + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("qwen2_5", "multi"): QWEN + IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "⟦Red, I think.<|im_end|>⟧\n",
    ("qwen2_5", "system"): IMS + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("qwen3", "single"): IM1 + "⟦<think>\n\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("qwen3", "multi"): IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "⟦<think>\n\n</think>\n\nRed, I think.<|im_end|>⟧\n",
    ("qwen3", "system"): IMS + IM1 + "⟦<think>\n\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("qwen3_training", "single"): IM1 + "⟦<think>\n\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("qwen3_training", "multi"): IM1
    + "⟦<think>\n\n</think>\n\nBlue.<|im_end|>⟧"
    + IM2
    + "⟦<think>\n\n</think>\n\nRed, I think.<|im_end|>⟧\n",
    ("qwen3_training", "system"): IMS + IM1 + "⟦<think>\n\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("qwen3_5_think", "single"): IM1 + "<think>\n⟦\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("qwen3_5_think", "multi"): IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "<think>\n⟦\n</think>\n\nRed, I think.<|im_end|>⟧\n",
    ("qwen3_5_think", "system"): IMS + IM1 + "<think>\n⟦\n</think>\n\nBlue.<|im_end|>⟧\n",
    ("smollm2", "single"): SMOL + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("smollm2", "multi"): SMOL + IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "⟦Red, I think.<|im_end|>⟧\n",
    ("smollm2", "system"): IMS + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("lfm2_2_5", "single"): "<|startoftext|>" + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("lfm2_2_5", "multi"): "<|startoftext|>" + IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "⟦Red, I think.<|im_end|>⟧\n",
    ("lfm2_2_5", "system"): "<|startoftext|>" + IMS + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("chatml_uncued", "single"): IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("chatml_uncued", "multi"): IM1 + "⟦Blue.<|im_end|>⟧" + IM2 + "⟦Red, I think.<|im_end|>⟧\n",
    ("chatml_uncued", "system"): IMS + IM1 + "⟦Blue.<|im_end|>⟧\n",
    ("llama3", "single"): "<|begin_of_text|>" + H_U1 + "⟦Blue.<|eot_id|>⟧",
    ("llama3", "multi"): "<|begin_of_text|>" + H_U1 + "⟦Blue.<|eot_id|>⟧" + H_U2 + "⟦Red, I think.<|eot_id|>⟧",
    ("llama3", "system"): "<|begin_of_text|>"
    + HDR.format("system")
    + "Be brief.<|eot_id|>"
    + H_U1
    + "⟦Blue.<|eot_id|>⟧",
    ("llama3_2", "single"): H32 + "<|eot_id|>" + H_U1 + "⟦Blue.<|eot_id|>⟧",
    ("llama3_2", "multi"): H32 + "<|eot_id|>" + H_U1 + "⟦Blue.<|eot_id|>⟧" + H_U2 + "⟦Red, I think.<|eot_id|>⟧",
    ("llama3_2", "system"): H32 + "Be brief.<|eot_id|>" + H_U1 + "⟦Blue.<|eot_id|>⟧",
    ("gemma", "single"): "<bos>" + G1 + "⟦Blue.<end_of_turn>⟧\n",
    ("gemma", "multi"): "<bos>" + G1 + "⟦Blue.<end_of_turn>⟧" + G2 + "⟦Red, I think.<end_of_turn>⟧\n",
    ("gemma", "system"): GS + "⟦Blue.<end_of_turn>⟧\n",
    ("gemma3", "single"): "<bos>" + G1 + "⟦Blue.<end_of_turn>⟧\n",
    ("gemma3", "multi"): "<bos>" + G1 + "⟦Blue.<end_of_turn>⟧" + G2 + "⟦Red, I think.<end_of_turn>⟧\n",
    ("gemma3", "system"): GS + "⟦Blue.<end_of_turn>⟧\n",
    ("gptoss", "single"): OSS_HEAD + OSS1 + "⟦<|channel|>final<|message|>Blue.<|return|>⟧",
    ("gptoss", "multi"): OSS_HEAD
    + OSS1
    + "⟦<|channel|>final<|message|>Blue.<|end|>⟧"
    + OSS2
    + "⟦<|channel|>final<|message|>Red, I think.<|return|>⟧",
    ("gptoss", "system"): OSS_HEAD
    + "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|>"
    + OSS1
    + "⟦<|channel|>final<|message|>Blue.<|return|>⟧",
    ("llama2", "single"): "<s>[INST] Name a colour. [/INST]⟦ Blue. </s>⟧",
    ("llama2", "multi"): "<s>[INST] Name a colour. [/INST]⟦ Blue. </s>⟧<s>[INST] Another? [/INST]⟦ Red, I think. </s>⟧",
    ("llama2", "system"): "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nName a colour. [/INST]⟦ Blue. </s>⟧",
    ("mistral3", "single"): "<s>[INST] Name a colour.[/INST]⟦ Blue.</s>⟧",
    ("mistral3", "multi"): "<s>[INST] Name a colour.[/INST]⟦ Blue.</s>⟧[INST] Another?[/INST]⟦ Red, I think.</s>⟧",
    ("mistral3", "system"): "<s>[INST] Be brief.\n\nName a colour.[/INST]⟦ Blue.</s>⟧",
    ("phi3", "single"): "<|user|>\nName a colour.<|end|>\n<|assistant|>\n⟦Blue.<|end|>⟧\n<|endoftext|>",
    ("phi3", "multi"): "<|user|>\nName a colour.<|end|>\n<|assistant|>\n⟦Blue.<|end|>⟧\n"
    "<|user|>\nAnother?<|end|>\n<|assistant|>\n⟦Red, I think.<|end|>⟧\n<|endoftext|>",
    ("phi3", "system"): "<|system|>\nBe brief.<|end|>\n"
    "<|user|>\nName a colour.<|end|>\n<|assistant|>\n⟦Blue.<|end|>⟧\n<|endoftext|>",
    ("zephyr", "single"): "<|user|>\nName a colour.</s>\n<|assistant|>\n⟦Blue.</s>⟧\n",
    ("zephyr", "multi"): "<|user|>\nName a colour.</s>\n<|assistant|>\n⟦Blue.</s>⟧\n"
    "<|user|>\nAnother?</s>\n<|assistant|>\n⟦Red, I think.</s>⟧\n",
    ("zephyr", "system"): "<|system|>\nBe brief.</s>\n<|user|>\nName a colour.</s>\n<|assistant|>\n⟦Blue.</s>⟧\n",
    ("vicuna", "single"): "USER: Name a colour. ASSISTANT:⟦ Blue.</s>⟧",
    ("vicuna", "multi"): "USER: Name a colour. ASSISTANT:⟦ Blue.</s>⟧USER: Another? ASSISTANT:⟦ Red, I think.</s>⟧",
    ("vicuna", "system"): "Be brief. USER: Name a colour. ASSISTANT:⟦ Blue.</s>⟧",
    ("deepseekv3", "single"): DS[0] + "<｜User｜>Name a colour.<｜Assistant｜>⟦Blue.<｜end▁of▁sentence｜>⟧",
    ("deepseekv3", "multi"): DS[0]
    + "<｜User｜>Name a colour.<｜Assistant｜>⟦Blue.<｜end▁of▁sentence｜>⟧"
    + "<｜User｜>Another?<｜Assistant｜>⟦Red, I think.<｜end▁of▁sentence｜>⟧",
    ("deepseekv3", "system"): DS[0] + "Be brief.<｜User｜>Name a colour.<｜Assistant｜>⟦Blue.<｜end▁of▁sentence｜>⟧",
    ("cohere2", "single"): "…" + CO_U.format("Name a colour.") + "⟦Blue.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>⟧",
    ("cohere2", "multi"): "…"
    + CO_U.format("Name a colour.")
    + "⟦Blue.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>⟧"
    + CO_U.format("Another?")
    + "⟦Red, I think.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>⟧",
    ("cohere2", "system"): "…" + CO_U.format("Name a colour.") + "⟦Blue.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>⟧",
    ("glm4moe", "single"): "[gMASK]<sop><|user|>\nName a colour.<|assistant|>⟦\n<think></think>\nBlue.⟧",
    ("glm4moe", "multi"): "[gMASK]<sop><|user|>\nName a colour.<|assistant|>⟦\n<think></think>\nBlue.⟧"
    "<|user|>\nAnother?<|assistant|>⟦\n<think></think>\nRed, I think.⟧",
    ("glm4moe", "system"): "[gMASK]<sop><|system|>\nBe brief.<|user|>\nName a colour.<|assistant|>"
    "⟦\n<think></think>\nBlue.⟧",
}
CONVERSATIONS = {"single": SINGLE, "multi": MULTI, "system": SYSTEM}


def marked(tokenizer: Any, encoded: Encoded) -> str:
    """The tokens as text, answers in ⟦ ⟧."""
    cuts = np.flatnonzero(np.diff(encoded.answer_mask.astype(int), prepend=0, append=0))
    pieces = np.split(encoded.ids, cuts)
    said = [tokenizer.decode(piece.tolist(), skip_special_tokens=False) for piece in pieces]
    return "".join(f"⟦{text}⟧" if i % 2 else text for i, text in enumerate(said))


def answers(tokenizer: Any, *messages: Message, **options: Any) -> list[str]:
    text = marked(tokenizer, encode(tokenizer, messages, **options))
    return [part.partition("⟧")[0] for part in text.split("⟦")[1:]]


def example(*messages: Message) -> Example:
    return Example("x", messages, content_key(messages))


def call(name: str, arguments: Any, **more: Any) -> Message:
    function = {"name": name, "arguments": arguments}
    return Message("assistant", "", json.dumps({"tool_calls": [{"type": "function", "function": function}], **more}))


@pytest.mark.parametrize("kind", ["bytes", "trimmed", "spaces"])
@pytest.mark.parametrize(("name", "which"), sorted(TRUTH))
def test_hand_made_truth(name: str, which: str, kind: str) -> None:
    specials = FAMILIES[name][0]
    made = with_spaces(specials) if kind == "spaces" else byte_level(specials, trim=kind == "trimmed")
    tokenizer = tokenizer_for(name, made)
    encoded = encode(tokenizer, CONVERSATIONS[which])
    told, truth = marked(tokenizer, encoded), TRUTH[name, which]
    truth = truth.replace("▁", " ") if kind == "spaces" else truth  # its decoder makes spaces of DeepSeek's own ▁
    assert told.endswith(truth[1:]) if truth.startswith("…") else told == truth
    assert encoded.stopped == (name != "glm4moe",) * truth.count("⟦")
    assert (encoded.cut_context, encoded.cut_answer) == (0, 0)
    assert encoded.ids.dtype == np.int32
    assert ("system_folded" in encoded.notes) == (name == "gemma" and which == "system")


@pytest.mark.models
def test_hand_made_truth_with_a_real_tokenizer() -> None:
    tokenizer = chat_tokenizer("smollm2-135m")
    for which, messages in CONVERSATIONS.items():
        assert marked(tokenizer, encode(tokenizer, messages)) == TRUTH["smollm2", which]
    said = [Message("user", "这是什么？ 👩‍🚀"), Message("assistant", " e\u0301 <|im_end|> 是的\n")]
    assert answers(tokenizer, *said) == [" e\u0301 <|im_end|> 是的\n<|im_end|>"]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_is_in_the_table_and_counts_as_it_encodes(name: str) -> None:
    assert {which for family, which in TRUTH if family == name} == set(CONVERSATIONS)
    tokenizer = tokenizer_for(name)
    rows = [example(*messages) for messages in CONVERSATIONS.values()]
    counts = count_tokens(tokenizer, rows)
    singly = [encode(tokenizer, row.messages) for row in rows]
    assert counts.total.tolist() == [len(each.ids) for each in singly]
    assert counts.answer.tolist() == [int(each.answer_mask.sum()) for each in singly]
    assert not counts.refused
    assert counts.unstopped.all() == (name == "glm4moe")
    told = tokenizer.decode(singly[0].ids.tolist())
    bos = FAMILIES[name][1]
    assert bos is None or not told.startswith(bos * 2)


@pytest.mark.parametrize("name", ["qwen3_training", "lfm2_2_5"])
def test_marks_agree_with_transformers_own_masks(name: str) -> None:
    tokenizer = tokenizer_for(name)
    for messages in (SINGLE, MULTI, SYSTEM, (*MULTI, U1)):
        theirs = tokenizer.apply_chat_template(
            [message.as_dict() for message in messages], return_dict=True, return_assistant_tokens_mask=True
        )
        ours = encode(tokenizer, messages)
        assert ours.ids.tolist() == theirs["input_ids"]
        mask = np.array(theirs["assistant_masks"], dtype=bool)
        after_stop = ~ours.answer_mask & mask  # marked line breaks behind the stop token are not taken
        assert set(ours.ids[after_stop]) <= set(tokenizer.encode("\n", add_special_tokens=False))
        assert not (ours.answer_mask & ~mask).any()


# --- hard contents -----------------------------------------------------------------------------------------------


def test_markers_and_repeats_inside_contents() -> None:
    tokenizer = tokenizer_for("qwen2_5")
    injected = "Blue.<|im_end|>\n<|im_start|>assistant\nBlue.<|im_end|>\n"
    assert answers(tokenizer, Message("user", injected), A1) == ["Blue.<|im_end|>"]
    assert answers(tokenizer, Message("user", "Blue."), A1, Message("user", "Blue."), A1) == ["Blue.<|im_end|>"] * 2
    ending = Message("assistant", "It ends with <|im_end|>")
    assert answers(tokenizer, U1, ending) == ["It ends with <|im_end|><|im_end|>"]
    assert answers(tokenizer, U1, ending, U2, A2) == ["It ends with <|im_end|><|im_end|>", "Red, I think.<|im_end|>"]
    whole = Message("assistant", "<|im_end|>\n<|im_start|>user\nAnother?<|im_end|>\n<|im_start|>assistant\n")
    assert answers(tokenizer, U1, whole, U2, A2)[0] == whole.content + "<|im_end|>"


@pytest.mark.parametrize("name", ["phi3", "gptoss", "qwen3", "llama3", "gemma", "mistral3"])
def test_stop_tokens_inside_contents_where_later_turns_change_earlier_ones(name: str) -> None:
    tokenizer = tokenizer_for(name)
    plain = answers(tokenizer, *MULTI)
    stop = {"phi3": "<|end|>", "gptoss": "<|end|>", "qwen3": "<|im_end|>", "llama3": "<|eot_id|>"}.get(name, "</s>")
    stop = "<end_of_turn>" if name == "gemma" else stop
    odd = [Message(m.role, f"x {stop} {m.content} {stop}") for m in MULTI]
    expected = [
        text.replace(m.content, f"x {stop} {m.content} {stop}") for text, m in zip(plain, (A1, A2), strict=True)
    ]
    assert answers(tokenizer, *odd) == expected


@pytest.mark.parametrize(
    ("name", "content", "truth"),
    [
        ("qwen2_5", "  Blue. \n\n", "  Blue. \n\n<|im_end|>"),
        ("llama3", "  Blue. \n\n", "Blue.<|eot_id|>"),
        ("gemma", "\n\nBlue.", "Blue.<end_of_turn>"),
        ("smollm2", "\nBlue.", "\nBlue.<|im_end|>"),
        ("qwen2_5", "👩‍🚀🇳🇱", "👩‍🚀🇳🇱<|im_end|>"),
        ("qwen2_5", "\u0301\u0323e\u0301", "\u0301\u0323e\u0301<|im_end|>"),
        ("vicuna", "👩‍🚀", " 👩‍🚀</s>"),
        ("zephyr", "\u200d", "\u200d</s>"),
        ("qwen2_5", "x" * 5000, "x" * 5000 + "<|im_end|>"),
    ],
)
def test_white_space_and_composed_characters(name: str, content: str, truth: str) -> None:
    specials = FAMILIES[name][0]
    for made in (byte_level(specials), byte_level(specials, trim=True)):
        tokenizer = tokenizer_for(name, made)
        assert answers(tokenizer, U1, Message("assistant", content)) == [truth]
        assert answers(tokenizer, U1, Message("assistant", content), U2, A2)[0] == truth


def test_a_token_across_the_boundary_is_answer() -> None:
    """`assistant\\n` and an answer that opens with a line break: where both are one token, it is in the loss."""
    made = byte_level(FAMILIES["smollm2"][0])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.add_tokens(["\n\n"])
    tokenizer = tokenizer_for("smollm2", made)
    encoded = encode(tokenizer, [U1, Message("assistant", "\nBlue.")])
    assert marked(tokenizer, encoded).endswith("<|im_start|>assistant⟦\n\nBlue.<|im_end|>⟧\n")


def test_turns_in_unusual_order() -> None:
    tokenizer = tokenizer_for("qwen2_5")
    assert answers(tokenizer, A1, U2, A2) == ["Blue.<|im_end|>", "Red, I think.<|im_end|>"]
    assert answers(tokenizer, *MULTI, U1) == ["Blue.<|im_end|>", "Red, I think.<|im_end|>"]
    assert answers(tokenizer, U1, A1, A2) == ["Blue.<|im_end|>", "Red, I think.<|im_end|>"]
    assert answers(tokenizer, U1, Message("assistant", ""), U2, A2) == ["<|im_end|>", "Red, I think.<|im_end|>"]
    long = [turn for i in range(40) for turn in (Message("user", f"Say {i % 3}"), Message("assistant", f"{i % 3}"))]
    assert answers(tokenizer, *long) == [f"{i % 3}<|im_end|>" for i in range(40)]


def test_developer_turns() -> None:
    told = Message("developer", "Be brief.")
    for name in ("gptoss", "llama3", "gemma"):
        tokenizer = tokenizer_for(name)
        assert render(tokenizer, [told, U1, A1]).text == render(tokenizer, SYSTEM).text
    assert "developer<|message|># Instructions\n\nBe brief." in render(tokenizer_for("gptoss"), [told, U1, A1]).text


# --- tools --------------------------------------------------------------------------------------------------------

HERMES = '<tool_call>\n{"name": "look", "arguments": {"q": "colours"}}\n</tool_call><|im_end|>'
LOOK = [U1, call("look", '{"q": "colours"}'), Message("tool", 'red\n"blue"', '{"name": "look"}'), A1]


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("qwen2_5", [HERMES, "Blue.<|im_end|>"]),
        ("qwen3", [HERMES, "<think>\n\n</think>\n\nBlue.<|im_end|>"]),
        ("llama3_2", ['{"name": "look", "parameters": {"q": "colours"}}<|eot_id|>', "Blue.<|eot_id|>"]),
        (
            "gptoss",
            [
                ' to=functions.look<|channel|>commentary json<|message|>{"q": "colours"}<|call|>',
                "<|channel|>final<|message|>Blue.<|return|>",
            ],
        ),
        ("lfm2_2_5", ["<|tool_call_start|>[look(q='colours')]<|tool_call_end|><|im_end|>", "Blue.<|im_end|>"]),
    ],
)  # fmt: skip
def test_tool_calls_are_answers_and_results_are_not(name: str, truth: list[str]) -> None:
    tokenizer = tokenizer_for(name)
    assert answers(tokenizer, *LOOK) == truth
    assert answers(tokenizer, *LOOK[:2])[-1].endswith(truth[0])
    legacy = Message("assistant", "", json.dumps({"function_call": {"name": "look", "arguments": {"q": "colours"}}}))
    assert answers(tokenizer, U1, legacy, *LOOK[2:]) == truth
    nested = call("look", {"q": FAMILIES[name][2] + "\n"})
    first, second = answers(tokenizer, U1, nested, *LOOK[2:])
    for written in ("\\n", "\n"):  # as JSON writes it, and as it is
        first = first.replace(FAMILIES[name][2] + written, "colours")
    assert [first, second] == truth


def test_tool_definitions_are_shown_or_refused() -> None:
    tools = json.dumps([{"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}])
    assert '"look"' in render(tokenizer_for("qwen3"), SINGLE, tools).text
    for name in ("llama3", "gemma", "phi3", "smollm2"):
        with pytest.raises(Refused, match="tool definitions") as error:
            encode(tokenizer_for(name), SINGLE, tools=tools)
        assert error.value.kind == "tools"
    with pytest.raises(Refused, match="not JSON"):
        encode(tokenizer_for("qwen3"), SINGLE, tools="[{")


# --- refusals -----------------------------------------------------------------------------------------------------

TWO_CALLS = Message(
    "assistant", "", json.dumps({"tool_calls": [{"function": {"name": n, "arguments": {}}} for n in ("look", "see")]})
)
IMAGE = Message("user", "See?", json.dumps({"parts": [{"type": "image"}]}))
THOUGHT = Message("assistant", "<think>\nSky.\n</think>\n\nBlue.")


@pytest.mark.parametrize(
    ("name", "messages", "kind", "says"),
    [
        ("llama3", LOOK, "tools", "tool calls"),
        ("gptoss", [U1, TWO_CALLS], "tools", "2 of them"),
        ("phi3", [U1, A1, Message("tool", "x"), A2], "tools", "what tools return"),
        ("gemma", [U1, A1, A2], "template_error", "Conversation roles must alternate"),
        ("gemma", [U1, U2, A2], "template_error", "Conversation roles must alternate"),
        ("gemma", [S, A1], "turn_dropped", "no user turn follows"),
        ("gptoss", [U1, A1, Message("system", "Now in French."), U2, A2], "turn_dropped", "turn 2 \\(system\\)"),
        ("qwen2_5", [IMAGE, A1], "turn_dropped", "images"),
        ("deepseekv3", [U1, THOUGHT], "answer_dropped", "thinking"),
        ("deepseekv3", LOOK, "unclear", "start"),
        ("deepseekv3", [U1, call("look", {"q": "colours"}), *LOOK[2:]], "unclear", "start"),
        ("qwen2_5", [U1], "no_answer", "nothing to learn"),
        ("qwen2_5", [U1, Message("assistant", " \n")], "no_answer", "nothing to learn"),
        ("qwen2_5", [], "no_answer", "nothing to learn"),
        ("qwen2_5", [U1, Message("assistant", "\ue0f0")], "unclear", "U\\+E0F0"),
    ],
)
def test_refusals_say_why(name: str, messages: list[Message], kind: str, says: str) -> None:
    tokenizer = tokenizer_for(name)
    with pytest.raises(Refused, match=says) as error:
        encode(tokenizer, messages)
    assert error.value.kind == kind
    counts = count_tokens(tokenizer, [example(*SINGLE), example(*messages), example(*MULTI)])
    assert counts.refused.keys() == {1}
    assert counts.refused[1].kind == kind
    assert (counts.answer > 0).tolist() == [True, False, True]


def test_a_template_whose_text_depends_on_the_words_is_refused() -> None:
    tokenizer = tokenizer_for("smollm2")
    counted = "<|im_start|>{{ m.role }} {{ m.content | length }}\n{{ m.content }}<|im_end|>\n"
    tokenizer.chat_template = "{% for m in messages %}" + counted + "{% endfor %}"
    with pytest.raises(Refused, match="differently for different words"):
        encode(tokenizer, MULTI)


def test_marks_in_a_comment_are_no_marks_and_unmatched_ones_are_refused() -> None:
    tokenizer = tokenizer_for("smollm2")
    plain = tokenizer.chat_template
    tokenizer.chat_template = "{#- not {% generation %} here {% endgeneration %} -#}" + plain
    assert answers(tokenizer, *SINGLE) == ["Blue.<|im_end|>"]
    tokenizer.chat_template = "{% if messages | length < 3 %}{% generation %}{% endgeneration %}{% endif %}" + plain
    with pytest.raises(Refused, match="marks none of this conversation"):
        encode(tokenizer, MULTI)


def test_marks_without_their_stop_token_get_it() -> None:
    tokenizer = tokenizer_for("smollm2")
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    assert answers(tokenizer, *MULTI) == ["Blue.<|im_end|>", "Red, I think.<|im_end|>"]


def test_thinking_is_kept_where_the_family_keeps_it_and_told_where_not() -> None:
    tokenizer = tokenizer_for("qwen3")
    assert answers(tokenizer, U1, THOUGHT) == ["<think>\nSky.\n</think>\n\nBlue.<|im_end|>"]
    encoded = encode(tokenizer, [U1, THOUGHT, U2, A2])
    assert "⟦Blue.<|im_end|>⟧" in marked(tokenizer, encoded)
    assert encoded.notes == ("answer_shortened",)
    reasoned = Message("assistant", "Blue.", json.dumps({"reasoning_content": "Sky."}))
    assert answers(tokenizer, U1, reasoned) == ["<think>\nSky.\n</think>\n\nBlue.<|im_end|>"]
    assert encode(tokenizer_for("smollm2"), [U1, reasoned]).notes == ("answer_shortened",)


def test_tokenizers_that_cannot_serve() -> None:
    tokenizer = tokenizer_for("smollm2")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        encode(tokenizer, SINGLE)
    tokenizer.chat_template = "{{ messages[0].content }}"
    with pytest.raises(ModelError, match="does not show a plain prompt"):
        encode(tokenizer, SINGLE)
    tokenizer.chat_template = "{{ raise_exception('Never.') }}"
    with pytest.raises(ModelError, match="Never") as error:
        count_tokens(tokenizer, [example(*SINGLE)])
    assert not isinstance(error.value, Refused)  # no row is to blame
    tokenizer.chat_template = {"rag": "{{ messages }}", "tool_use": "{{ messages }}"}
    with pytest.raises(ModelError, match="several chat templates, but no default"):
        encode(tokenizer, SINGLE)

    class Slow:
        name_or_path = "old"
        is_fast = False

    with pytest.raises(ModelError, match="which characters"):
        tokenizer_digest(Slow())


def test_the_plain_template_is_used_when_asked_for_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    chat_template._say_plain.cache_clear()
    tokenizer, again = tokenizer_for("vicuna"), tokenizer_for("vicuna")
    tokenizer.chat_template = again.chat_template = PLAIN
    told = marked(tokenizer, encode(tokenizer, MULTI))
    assert told == "<s>Name a colour.\n\n⟦Blue.</s>⟧\n\nAnother?\n\n⟦Red, I think.</s>⟧"
    assert answers(tokenizer, *SYSTEM) == answers(again, *SYSTEM) == ["Blue.</s>"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- truncation ---------------------------------------------------------------------------------------------------


def test_truncation_by_hand() -> None:
    tokenizer = tokenizer_for("qwen2_5")
    long = Message("user", "first " * 50 + "last")
    whole = encode(tokenizer, [S, long, A1])
    cut = encode(tokenizer, [S, long, A1], max_tokens=40)
    assert len(cut.ids) == 40
    assert cut.cut_context == len(whole.ids) - 40
    text = marked(tokenizer, cut)
    assert text.startswith(IMS + "<|im_start|>user\n")
    assert text.endswith("last<|im_end|>\n<|im_start|>assistant\n⟦Blue.<|im_end|>⟧\n"[:-1])


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("gemma", "<bos><start_of_turn>user\nBe brief.\n\n"),
        ("gemma3", "<bos><start_of_turn>user\nBe brief.\n\n"),
        ("llama2", "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n"),
        ("gptoss", OSS_HEAD + "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|>"),
    ],
)  # fmt: skip
def test_truncation_keeps_the_system_text_wherever_it_stands(name: str, head: str) -> None:
    tokenizer = tokenizer_for(name)
    messages = [S, Message("user", "first " * 50 + "last"), A1]
    whole = encode(tokenizer, messages)
    told = marked(tokenizer, encode(tokenizer, messages, max_tokens=len(whole.ids) - 30))
    assert told.startswith(head.rstrip())
    assert "last" in told
    assert told.count("first") < 50


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "gemma", "gptoss", "mistral3", "phi3", "vicuna"])
def test_truncation_takes_context_and_counts(name: str) -> None:
    tokenizer = tokenizer_for(name)
    messages = [Message(m.role, m.content * 9 if m.role == "user" else m.content) for m in (*MULTI, U1)]
    whole = encode(tokenizer, messages)
    kept = whole.ids[whole.answer_mask].tolist()
    context = whole.ids[~whole.answer_mask].tolist()
    for most in range(1, len(whole.ids) + 3):
        cut = encode(tokenizer, messages, max_tokens=most)
        assert len(cut.ids) == min(most, len(whole.ids)) == len(cut.answer_mask)
        assert cut.ids[cut.answer_mask].tolist() == kept[:most]
        assert cut.cut_answer == max(0, len(kept) - most)
        assert cut.cut_context == len(whole.ids) - len(cut.ids) - cut.cut_answer
        left = iter(context)
        assert all(token in left for token in cut.ids[~cut.answer_mask].tolist())  # in order, nothing made up
    with pytest.raises(ValueError, match="max_tokens is 0"):
        encode(tokenizer, messages, max_tokens=0)


# --- a naive twin -------------------------------------------------------------------------------------------------


def by_hand(name: str, messages: list[Message]) -> list[tuple[str, bool]]:
    """Pieces of the chat and whether each is answer, for four families, written without the templates."""
    pieces = [("<|begin_of_text|>", False)] if name == "llama3" else []
    for message in messages:
        mine = message.role == "assistant"
        if name == "chatml_uncued":
            pieces += [(f"<|im_start|>{message.role}\n", False), (message.content + "<|im_end|>", mine), ("\n", False)]
        elif name == "llama3":
            pieces += [(HDR.format(message.role), False), (message.content.strip() + "<|eot_id|>", mine)]
        elif name == "phi3":
            pieces += [(f"<|{message.role}|>\n", False), (message.content + "<|end|>", mine), ("\n", False)]
        else:
            pieces += [(f"<|{message.role}|>\n", False), (message.content + "</s>", mine), ("\n", False)]
    return [*pieces, ("<|endoftext|>", False)] if name == "phi3" else pieces


pieces_of_text = st.sampled_from(["a", " ", "\n", "é", "👩", "\u0301", "<|im_end|>", "</s>", "<|end|>", "<|eot_id|>"])
strange = st.characters(exclude_characters="\ue0f0\ue0f1", exclude_categories=["Cs"])
words = st.lists(pieces_of_text | strange, max_size=8).map("".join)
TOKENIZERS = {name: tokenizer_for(name) for name in ("chatml_uncued", "llama3", "phi3", "zephyr")}


@settings(max_examples=150)
@given(
    name=st.sampled_from(sorted(TOKENIZERS)),
    said=st.lists(words, min_size=2, max_size=5).filter(lambda said: any(text.strip() for text in said[1::2])),
)
def test_masks_are_those_of_a_naive_twin(name: str, said: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    messages = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(said)]
    pieces = by_hand(name, messages)
    text = "".join(piece for piece, _ in pieces)
    inside = [mine for piece, mine in pieces for _ in piece]
    batch = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    encoded = encode(tokenizer, messages)
    assert encoded.ids.tolist() == batch["input_ids"]
    assert encoded.answer_mask.tolist() == [any(inside[start:end]) for start, end in batch["offset_mapping"]]


def test_threads_share_a_tokenizer() -> None:
    tokenizer = tokenizer_for("lfm2_2_5")
    rows = [example(U1, Message("assistant", "x" * i)) for i in range(1, 60)]
    alone, found = count_tokens(tokenizer_for("lfm2_2_5"), rows).answer.tolist(), []
    threads = [
        threading.Thread(target=lambda: found.append(count_tokens(tokenizer, rows).answer.tolist())) for _ in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 3


def test_digest_holds_vocabulary_and_template_but_no_state() -> None:
    one, other = tokenizer_for("qwen2_5"), tokenizer_for("qwen2_5")
    before = tokenizer_digest(one)
    one(["a", "b b b"], padding=True, pad_to_multiple_of=4) if one.pad_token else None
    one.backend_tokenizer.enable_truncation(5)
    assert tokenizer_digest(one) == before == tokenizer_digest(other)
    other.chat_template = PLAIN
    assert tokenizer_digest(other) != before
    one.add_tokens(["colour"])
    assert tokenizer_digest(one) != before
