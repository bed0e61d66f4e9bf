"""Examples of every feature, for the laws: a new feature gets a line in `examples`.

`make(folder)` gives a spec; `folder` is an empty folder in which it may put what it needs. `models` marks examples that
need the real embedded models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from coretune.features.reference_pool import ReferencePool
from coretune.pool import SCHEMA, Example, Message, Pool, content_key
from tests.made_contexts import Given
from tests.made_pools import HashedWords
from tests.tiny_features import Echo, Hashed, Letters, Spread


@dataclass(frozen=True)
class Case:
    """A feature's example: its name in test reports, and how to make it."""

    name: str
    make: Callable[[Path], Any]
    models: bool = False


ASKED = "{fence}\n{prompt}\n{answer}\n{fence}\nyes or no?"
GIVEN = Given(("It is so.", "{answer}"))


def examples() -> list[Case]:
    """Examples of every feature; the first ones are made for tests, so that the laws are never without any."""
    from coretune.features.answer_loss import AnswerLoss
    from coretune.features.answer_token_losses import AnswerTokenLosses
    from coretune.features.answer_tokens import AnswerTokens
    from coretune.features.choice_losses import ChoiceLosses
    from coretune.features.demonstration_distance import DemonstrationDistance
    from coretune.features.demonstration_loss import DemonstrationLoss
    from coretune.features.embedding import Embedding
    from coretune.features.generation import Generation
    from coretune.features.judgement import Judgement
    from coretune.features.length import Length
    from coretune.features.lora_gradient import LoraGradient
    from coretune.features.mean_states import MeanStates
    from coretune.features.noisy_token_losses import NoisyTokenLosses
    from coretune.features.preference import Preference
    from coretune.features.rating import Rating
    from coretune.features.reward import Reward
    from coretune.features.tags import Tags
    from coretune.features.weight_gradient import WeightGradient
    from coretune.features.weighted_states import WeightedStates
    from coretune.features.yes_probability import YesProbability

    return [
        Case("hashed", lambda folder: Hashed(width=3)),
        Case("letters", lambda folder: Letters()),
        Case("spread, ragged", lambda folder: Spread()),
        Case("echo, texts", lambda folder: Echo()),
        Case("hashed words", lambda folder: HashedWords(width=8)),
        Case("answer tokens", lambda folder: AnswerTokens(str(_tokenizer(folder)))),
        Case("length of answer", lambda folder: Length()),
        Case("length of prompt", lambda folder: Length("prompt")),
        Case("embedding mean", lambda folder: Embedding(str(_causal_model(folder)), precision="float32")),
        Case("embedding last, cut", lambda folder: Embedding(str(_causal_model(folder)), pooling="last", long="cut")),
        Case("LoRA gradient", lambda folder: LoraGradient(*_adapted(folder), d=32, precision="float32")),
        Case("LoRA gradient, Adam, two checkpoints", lambda folder: LoraGradient(*_adapted(folder, 2), "adam", d=32)),
        Case("weight gradient", lambda folder: WeightGradient(str(_causal_model(folder)), side=3, d=32)),
        Case("yes probability", lambda folder: YesProbability(_answerer(folder), ASKED, precision="float32")),
        Case("yes probability, T5", lambda folder: YesProbability(_answerer(folder, "t5"), ASKED, max_tokens=48)),
        Case("rating", lambda folder: Rating(_answerer(folder), ("{text}\n1 2 3", ASKED), 1, 3)),
        Case("mean states", lambda folder: MeanStates(*_midway(folder), precision="float32")),
        Case("mean states, unit, bfloat16", lambda folder: MeanStates(*_midway(folder), True, precision="bfloat16")),
        Case("weighted states", lambda folder: WeightedStates(str(_causal_model(folder)))),
        Case("answer loss", lambda folder: AnswerLoss(*_answered(folder), precision="float32")),
        Case("answer loss, bfloat16", lambda folder: AnswerLoss(*_answered(folder), precision="bfloat16")),
        Case("answer loss, context", lambda folder: AnswerLoss(*_answered(folder), GIVEN, 16, precision="float32")),
        Case("answer loss, nothing", lambda folder: AnswerLoss(*_answered(folder, "nothing"), precision="float32")),
        Case("answer token losses", lambda folder: AnswerTokenLosses(*_answered(folder), precision="float32")),
        Case("noisy token losses", lambda folder: NoisyTokenLosses(*_answered(folder), copies=2, precision="float32")),
        Case("demonstration loss", lambda folder: DemonstrationLoss(*_anchored(folder), precision="float32")),
        Case("demonstration distance", lambda folder: DemonstrationDistance(*_anchored(folder), precision="float32")),
        Case("choice losses", lambda folder: ChoiceLosses(_chatty(folder), precision="float32")),
        Case("choice losses, text", lambda folder: ChoiceLosses(_chatty(folder), chat=False, precision="float32")),
        # texts are the same in float32, but for ties: the tolerance, a share of rows, allows none of so few
        Case("generation", lambda folder: Generation(str(_causal_model(folder)), max_new_tokens=6, batch_rows=4)),
        Case("generation, drawn", lambda folder: _drawn(folder)),
        Case("reward", lambda folder: Reward(_rewards(folder))),
        Case("reward, laid out", lambda folder: Reward(_rewards(folder), layout="Q: {prompt} A: {answer}")),
        Case("reward, bidirectional", lambda folder: Reward(_rewards(folder, "bert"), max_tokens=48)),
        Case("judgement", lambda folder: Judgement(_judge(folder))),
        Case("judgement, stated", lambda folder: Judgement(_judge(folder, logprobs=False), longest_characters=99)),
        Case("preference", lambda folder: Preference(_judge(folder), longest_characters=999)),
        Case("tags", lambda folder: Tags(_judge(folder))),
        Case("answer tokens smollm2", lambda folder: AnswerTokens("smollm2-135m"), models=True),
        Case("yes probability smollm2", lambda folder: YesProbability("smollm2-135m", max_tokens=256), models=True),
        Case(
            "answer loss smollm2",
            lambda folder: AnswerLoss("smollm2-135m", max_tokens=96, precision="bfloat16"),
            models=True,
        ),
        Case(
            "generation smollm2",
            lambda folder: Generation("smollm2-135m", max_new_tokens=2, max_tokens=24),
            models=True,
        ),
        Case("embedding minilm", lambda folder: Embedding("minilm"), models=True),
    ]


def _tokenizer(folder: Path) -> Path:
    """A small tokenizer with a chat template, saved as a model folder has it."""
    from tests.made_tokenizers import tokenizer_for

    tokenizer_for("qwen2_5").save_pretrained(folder)
    return folder


def _causal_model(folder: Path) -> Path:
    """A causal language model of two layers with random weights, and a window of 64 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    logging.disable_progress_bar()
    LlamaForCausalLM(config).save_pretrained(folder)
    return _tokenizer(folder)


def _answerer(folder: Path, kind: str = "chat") -> str:
    """A model whose tokenizer knows the words that answers are made of: a chat model, or a T5."""
    from tests.made_answerers import answering_folder, byte_level, t5_folder

    return str(t5_folder(folder) if kind == "t5" else answering_folder(folder, byte_level("smollm2"), window=96))


def _answered(folder: Path, before: str = "conversation") -> tuple[str, str]:
    """A causal model, and what it is to read before answers."""
    return str(_causal_model(folder)), before


def _chatty(folder: Path) -> str:
    """A causal model whose window holds a short prompt and its choices."""
    from tests.made_models import causal_folder

    return str(causal_folder(folder, window=96))


def _rewards(folder: Path, kind: str = "llama") -> str:
    """A reward model of two layers: causal, or one whose tokens see later ones."""
    from tests.made_rewards import bidirectional_folder, reward_folder

    return str(bidirectional_folder(folder) if kind == "bert" else reward_folder(folder))


def _drawn(folder: Path) -> Any:
    """Answers that are drawn, of prompts in a small window."""
    from coretune.features.generation import Generation

    return Generation(str(_causal_model(folder)), max_new_tokens=6, temperature=0.7, sample=1, stop=("~",))


def _anchored(folder: Path) -> tuple[str, ReferencePool]:
    """A causal model, and two anchors that are short enough for its window."""
    from tests.made_models import causal_folder

    talks = [[Message("user", asked), Message("assistant", said)] for asked, said in (("One?", "1"), ("8?", "Eight"))]
    anchors = [Example(str(each), tuple(talk), content_key(talk)) for each, talk in enumerate(talks)]
    return str(causal_folder(folder, window=128)), ReferencePool.of(anchors)


def _adapted(folder: Path, checkpoints: int = 1) -> tuple[str, tuple[Any, ...]]:
    """A causal model and checkpoints of an adapter of it, with optimizer states."""
    from coretune.features.lora_gradient import AdapterAt
    from tests.made_adapters import adapter_folder, optimizer_file

    model = _causal_model(folder / "model")
    made = [adapter_folder(folder / f"adapter {seed}", model, seed=seed) for seed in range(checkpoints)]
    for adapter in made:
        optimizer_file(adapter)
    return str(model), tuple(AdapterAt(adapter.name, str(adapter), 1.0 + seed) for seed, adapter in enumerate(made))


def _midway(folder: Path) -> tuple[str, Any]:
    """A causal model, and a checkpoint of an adapter of it."""
    model, (adapter,) = _adapted(folder)
    return model, adapter


def _judge(folder: Path, **faults: Any) -> Any:
    """A judge behind a server that fails now and then, for as long as the tests run."""
    from coretune.judge import Judge
    from tests.faulty_server import lasting

    url = lasting(folder, plan=["429", "truncated", "500"], **faults).url
    return Judge(url, "made", store=str(folder), backoff_seconds=0.01)


def varied_pool() -> Pool:
    """Rows of every kind: short and long, other scripts, turns, tools, no answer, copies under other names."""
    long = " ".join(f"word{i % 37}" for i in range(700))
    talks: list[list[Message]] = [
        [Message("user", "What is two plus two?"), Message("assistant", "Four.")],
        [Message("user", "Q"), Message("assistant", "A")],
        [Message("user", long), Message("assistant", "Short.")],
        [Message("user", "Tell me everything."), Message("assistant", long)],
        [Message("user", long), Message("assistant", long + " and more")],
        [Message("user", "没有问题吗？"), Message("assistant", "没有。" * 20)],
        [Message("user", "é\u0301 👩‍🚀 \u202e"), Message("assistant", "ß\tﬃ\n\n")],
        [Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "Because.")],
        [Message("user", "One?"), Message("assistant", "1"), Message("user", "Two?"), Message("assistant", "2")],
        [Message("user", "One?"), Message("assistant", "1"), Message("user", "And then?")],
        [Message("user", "Nobody answers.")],
        [Message("user", "An empty answer."), Message("assistant", "")],
        [Message("user", ""), Message("assistant", "An answer to nothing.")],
        *(
            [Message("user", f"Item {i}: " + "more " * i), Message("assistant", f"Answer {i} " + "so " * (i * 7 % 23))]
            for i in range(14)
        ),
    ]
    talks.append(talks[0])  # a copy
    talks.append(talks[4])
    choices = '{"choices": ["blue", "a colour that nobody has seen yet", "no"]}'
    talks.append([Message("user", "Which colour has the sky?"), Message("assistant", "blue", choices)])
    talks.append([Message("user", long), Message("assistant", "no", choices)])
    rows = [
        {
            "id": f"row {row}",
            "file": "made",
            "line": row + 1,
            "raw": b"{}",
            "key": content_key(talk),
            "messages": [{"role": turn.role, "content": turn.content, "extra": turn.extra} for turn in talk],
            "tools": None,
            "source": f"source {row % 3}",
            "lang": None,
        }
        for row, talk in enumerate(talks)
    ]
    return Pool(pa.table([pa.array([row[each.name] for row in rows], each.type) for each in SCHEMA], schema=SCHEMA))
