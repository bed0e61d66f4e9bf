"""Tuning against hand-made losses, its plan by the published numbers, its checkpoints, its refusals, its store."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.errors import CoretuneError, ModelError, PoolError
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.pool import Message, Pool, content_key
from coretune.store.digests import spec_words
from coretune.tuning import Tuned, Tuning, find_tuned
from coretune.tuning.schedule import Plan, learning_rates, mean_rates

WINDOW = 64


# Plan: no training needed


def test_mean_rates_are_those_that_were_published_with_tagcos() -> None:
    spec = Tuning("m", learning_rate=2e-5, schedule="linear", warmup=0.03, batch_rows=128, epochs=4)
    plan = Plan.of(dataclasses.replace(spec, stop_after=30, checkpoints=(10, 20, 30)), 54_000)
    assert plan.planned == 1688 and plan.run == 30 and plan.checkpoints == (10, 20, 30)
    means = mean_rates(plan.rates, plan.checkpoints)
    np.testing.assert_allclose(means, [2.1569e-06, 6.0784e-06, 1e-05], rtol=2e-5)


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_after_the_warm_up_the_rates_are_those_of_transformers(name: str) -> None:
    from torch import nn, optim
    from transformers import get_scheduler

    spec = Tuning("m", learning_rate=1.0, schedule=name, warmup=0.1)  # type: ignore[arg-type]
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    name = "constant_with_warmup" if name == "constant" else name
    theirs = get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=50)
    rates = []
    for _ in range(50):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    ours = learning_rates(spec, 50)
    np.testing.assert_allclose(ours[5:], rates[5:], atol=1e-12)
    np.testing.assert_allclose(ours[:5], [0.2, 0.4, 0.6, 0.8, 1.0])


def test_every_epoch_goes_through_all_rows_in_another_order() -> None:
    plan = Plan.of(Tuning("m", batch_rows=4, epochs=2.5), 10)
    steps = [plan.step_rows(step) for step in range(1, plan.run + 1)]
    assert [len(rows) for rows in steps] == [4, 4, 2, 4, 4, 2, 4, 4] and plan.planned == 8
    first, second = np.concatenate(steps[:3]), np.concatenate(steps[3:6])
    assert sorted(first) == sorted(second) == list(range(10)) and list(first) != list(second)
    assert [list(plan.step_rows(step)) for step in (8, 1)] == [list(steps[7]), list(steps[0])]


def test_checkpoints_are_steps_or_shares_of_the_steps_run() -> None:
    spec = Tuning("m", batch_rows=1, epochs=1, stop_after=30, checkpoints=(10, 1 / 3, 2 / 3, 1.0, 1))
    assert Plan.of(spec, 90).checkpoints == (1, 10, 20, 30)
    with pytest.raises(ValueError, match="step 31 asked, but the tuning has 30 steps"):
        Plan.of(dataclasses.replace(spec, checkpoints=(31,)), 90)


# A tiny model and pools of letters


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.made_models import causal_folder

    return str(causal_folder(tmp_path_factory.mktemp("models") / "tiny", window=WINDOW))


def pool_of(talks: Sequence[Sequence[tuple[str, str]]]) -> Pool:
    import pyarrow as pa

    from coretune.pool import SCHEMA

    rows = []
    for number, talk in enumerate(talks):
        messages = [Message(role, text) for role, text in talk]
        said = {
            "id": str(number),
            "file": "f",
            "line": number,
            "raw": repr(talk).encode(),
            "key": content_key(messages),
        }
        said |= {"messages": [dataclasses.asdict(each) for each in messages]}
        rows.append({**dict.fromkeys(SCHEMA.names), **said})
    return Pool(pa.table([pa.array([row[each.name] for row in rows], each.type) for each in SCHEMA], schema=SCHEMA))


def talk(prompt: str, answer: str) -> list[tuple[str, str]]:
    return [("user", prompt), ("assistant", answer)]


TALKS = [
    talk("a b", "c"),
    talk("one two three", "four five six seven"),
    [("user", "hi"), ("assistant", "oh"), ("user", "and now?"), ("assistant", "we go on")],
    talk("x", "y " * 10),
    talk("count", "1 2 3"),
    talk("say it again", "it again it again"),
]


@pytest.fixture
def tune(model: str, tmp_path: Path) -> Callable[..., Tuned]:
    lab = Lab(tmp_path / "store")
    plain = {"precision": "float32", "dropout": 0.0, "batch_rows": 3, "learning_rate": 1e-3, "warmup": 0.0, "rank": 4}

    def run(pool: Pool | None = None, weights: Any = None, rows: Any = None, **options: Any) -> Tuned:
        given = None if weights is None else np.array(weights)
        spec = Tuning(model, **{**plain, **options})
        return lab.tune(spec, pool or pool_of(TALKS), rows, given)

    return run


def tensors(tuned: Tuned, name: str = "*model.safetensors") -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    (path,) = tuned.path.glob(name)
    return load_file(path)


def same(one: Tuned, other: Tuned) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def row_loss(model: Any, tokenizer: Any, messages: Sequence[Message]) -> tuple[Any, int]:
    """The answer loss of one row alone, summed, by hand: cross entropy of each answer token given what is before it."""
    import torch

    from coretune.chat import encode

    one = encode(tokenizer, messages, max_tokens=WINDOW)
    logits = model(input_ids=torch.tensor(one.ids[None].astype(np.int64))).logits[0].log_softmax(-1)
    at = [place for place in range(1, len(one.ids)) if one.answer_mask[place]]
    return -sum(logits[place - 1, int(one.ids[place])] for place in at), len(at)


@pytest.mark.parametrize("average", ["tokens", "rows"])
@pytest.mark.parametrize("rank", [4, None])
def test_a_step_is_that_of_a_hand_made_loss_row_by_row(
    tune: Callable[..., Tuned], model: str, average: str, rank: int | None
) -> None:
    import torch

    from coretune.chat import chat_tokenizer
    from coretune.models import load_causal_lm

    weights = [0.5, 2.0, 1.0, 0.0, 1.5, 1.0]
    options = {"batch_rows": 6, "epochs": 1, "average": average, "rank": rank, "max_norm": None}
    tuned = tune(weights=weights, batch_tokens=64, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    twin: Any = load_causal_lm(model)
    if rank is not None:
        from peft import LoraConfig, get_peft_model

        with pytest.warns(FutureWarning):
            config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            twin = get_peft_model(twin, config)
    tokenizer, pool = chat_tokenizer(model), pool_of(TALKS)
    losses = [row_loss(twin, tokenizer, example.messages) for example in pool]
    if average == "tokens":
        loss = sum(w * each for w, (each, _) in zip(weights, losses)) / sum(count for _, count in losses)
    else:
        loss = sum(w * each / count for w, (each, count) in zip(weights, losses)) / len(losses)
    assert tuned.losses[0] == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(tuned.row_losses, [each.item() / count for each, count in losses], rtol=1e-5)
    loss.backward()
    moments, seen = tensors(tuned, "optimizer.safetensors"), 0
    for name, parameter in twin.named_parameters():
        key = f"exp_avg.{name.replace('.default', '')}"
        if parameter.grad is not None:
            seen += 1
            expected = 0.1 * parameter.grad.numpy()
            np.testing.assert_allclose(moments[key], expected, rtol=1e-3, atol=1e-6 * np.abs(expected).max() + 1e-12)
    assert seen == len(moments) // 2 > 0


def other_models(folder: Path, kind: str) -> Path:
    """A tiny model of another family: GPT-2 (learned positions, Conv1D) or Gemma 3 (soft caps, sliding windows)."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, MistralConfig

    from tests.made_models import no_bars
    from tests.made_tokenizers import tokenizer_for

    torch.manual_seed(0)
    sizes = {"vocab_size": 512, "max_position_embeddings": WINDOW, "initializer_range": 0.5}
    layers = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config: Any = {
        "gpt2": lambda: GPT2Config(
            vocab_size=512,
            n_positions=WINDOW,
            n_embd=32,
            n_layer=2,
            n_head=2,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        ),
        "gemma3": lambda: Gemma3TextConfig(
            **sizes, **layers, head_dim=16, num_key_value_heads=1, sliding_window=16, final_logit_softcapping=5.0
        ),
        "mistral": lambda: MistralConfig(**sizes, **layers, num_key_value_heads=1, sliding_window=16),
    }[kind]()
    with no_bars():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer_for("llama3").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "gemma3", "mistral"])
def test_other_families_have_the_loss_of_their_rows_alone(tmp_path: Path, kind: str) -> None:
    from coretune.chat import chat_tokenizer
    from coretune.models import load_causal_lm

    model = str(other_models(tmp_path / kind, kind))
    options = {"precision": "float32", "dropout": 0.0, "batch_rows": 6, "stop_after": 1}
    tuned = Lab(tmp_path / "store").tune(Tuning(model, **options), pool_of(TALKS))  # type: ignore[arg-type]
    plain, tokenizer = load_causal_lm(model), chat_tokenizer(model)
    losses = [row_loss(plain, tokenizer, example.messages) for example in pool_of(TALKS)]
    np.testing.assert_allclose(tuned.row_losses, [each.item() / count for each, count in losses], rtol=1e-4)


def test_micro_batches_change_nothing_but_the_last_bits(tune: Callable[..., Tuned]) -> None:
    small, large = tune(batch_tokens=32), tune(batch_tokens=4096)
    np.testing.assert_allclose(small.losses, large.losses, rtol=1e-5)
    for name, values in tensors(small).items():
        np.testing.assert_allclose(values, tensors(large)[name], atol=1e-5)


def test_the_loss_falls_and_what_is_kept_says_so(tune: Callable[..., Tuned]) -> None:
    tuned = tune(epochs=20, learning_rate=5e-3)
    assert tuned.losses[-2:].mean() < 0.5 * tuned.losses[:2].mean()
    visits = tuned.visits
    assert len(visits) == 20 * len(TALKS) and (np.bincount(visits["row"]) == 20).all()
    assert tuned.row_losses[2] == pytest.approx(visits["loss"][visits["row"] == 2].mean(), rel=1e-5)
    assert len(tuned.learning_rates) == len(tuned.losses) == 40 and tuned.seconds > 0


def test_a_row_of_weight_0_teaches_nothing(tune: Callable[..., Tuned]) -> None:
    changed = [*TALKS[:3], talk("y", "z " * 10), *TALKS[4:]]
    weights, options = [1, 2, 1, 0, 1, 1], {"average": "rows", "epochs": 2}
    one, other = (tune(pool_of(each), weights, **options) for each in (TALKS, changed))  # type: ignore[arg-type]
    assert one.address != other.address and same(one, other)
    assert one.row_losses[3] != other.row_losses[3]


def test_doubled_weights_double_the_loss_and_the_gradient(tune: Callable[..., Tuned]) -> None:
    one, two = (tune(weights=[w] * len(TALKS), max_norm=None, stop_after=1) for w in (1.0, 2.0))
    assert two.losses[0] == pytest.approx(2 * one.losses[0], rel=1e-6)
    for name, values in tensors(one, "optimizer.safetensors").items():
        factor = 4 if "exp_avg_sq" in name else 2
        np.testing.assert_allclose(tensors(two, "optimizer.safetensors")[name], factor * values, rtol=1e-4, atol=1e-12)


def test_two_seeds_are_two_tunings_and_one_seed_is_one_to_the_last_bit(
    tune: Callable[..., Tuned], model: str, tmp_path: Path
) -> None:
    one, other = tune(dropout=0.1), tune(dropout=0.1, seed=1)
    assert one.address != other.address and not same(one, other)
    spec = Tuning(model, precision="float32", dropout=0.1, batch_rows=3, learning_rate=1e-3, warmup=0, rank=4)
    import torch

    torch.manual_seed(7)  # whatever the state before
    state = torch.random.get_rng_state()
    again = Lab(tmp_path / "another").tune(spec, pool_of(TALKS))
    assert again.address == one.address and same(one, again) and torch.equal(state, torch.random.get_rng_state())
    assert [each.digest for each in again.checkpoints] == [each.digest for each in one.checkpoints]


def test_bfloat16_keeps_what_is_tuned_in_float32_and_agrees_roughly(tune: Callable[..., Tuned]) -> None:
    exact, rough = tune(), tune(precision="bfloat16")
    np.testing.assert_allclose(rough.losses, exact.losses, rtol=0.02)
    assert {values.dtype for values in tensors(rough).values()} == {np.dtype(np.float32)}
    assert not same(exact, rough)


def test_gradient_checkpointing_changes_nothing(tune: Callable[..., Tuned]) -> None:
    assert same(tune(dropout=0.1), tune(dropout=0.1, gradient_checkpointing=True))


def test_checkpoints_load_with_peft_and_hold_the_optimizer_by_name(tune: Callable[..., Tuned], model: str) -> None:
    import torch
    from peft import PeftModel
    from safetensors import safe_open

    from coretune.chat import chat_tokenizer
    from coretune.models import load_causal_lm

    tuned = tune(checkpoints=(1, 0.5), epochs=3)
    assert [each.step for each in tuned.checkpoints] == [1, 3, 6] and tuned.path == tuned.checkpoints[-1].path
    rates = tuned.learning_rates
    means = [rates[0], rates[1:3].mean(), rates[3:].mean()]
    assert [each.learning_rate for each in tuned.checkpoints] == pytest.approx(means)
    assert len({each.digest for each in tuned.checkpoints}) == 3
    config = json.loads((tuned.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == model and config["target_modules"] == sorted(config["target_modules"])
    with safe_open(tuned.checkpoints[1].path / "optimizer.safetensors", "np") as state:
        assert state.metadata() == {"step": "3", "beta1": "0.9", "beta2": "0.999", "eps": "1e-08"}
        names = {key.partition(".")[2] for key in state.keys()}  # noqa: SIM118 - no dict
        shapes = {key: state.get_slice(f"exp_avg_sq.{key}").get_shape() for key in names}
    assert shapes == {name: list(values.shape) for name, values in tensors(tuned).items()}
    with pytest.warns(FutureWarning):
        loaded: Any = PeftModel.from_pretrained(load_causal_lm(model), tuned.path)
    tokenizer, example = chat_tokenizer(model), pool_of(TALKS)[1]
    with torch.no_grad():
        loss, count = row_loss(loaded.eval(), tokenizer, example.messages)
    assert float(loss) / count < tuned.visits["loss"][tuned.visits["row"] == 1][0]


def test_all_weights_tuned_are_a_model_of_their_own(tune: Callable[..., Tuned]) -> None:
    from coretune.chat import chat_tokenizer
    from coretune.models import find_model, load_causal_lm

    tuned = tune(rank=None, epochs=1)
    assert find_model(tuned.path).kind == "causal-lm"
    load_causal_lm(tuned.path)
    chat_tokenizer(str(tuned.path))


def test_targets_by_name(tune: Callable[..., Tuned]) -> None:
    kinds = {name.split(".")[-3] for name in tensors(tune(targets=("q_proj", "v_proj")))}
    assert kinds == {"q_proj", "v_proj"}
    with pytest.raises(ValueError, match=r"no linear layer 'qproj'; did you mean 'q_proj'\? It has: down_proj"):
        tune(targets=("qproj",))


def test_rows_without_an_answer_are_left_out_and_counted(tune: Callable[..., Tuned]) -> None:
    pool = pool_of([*TALKS, [("user", "nobody answers")]])
    tuned = tune(pool)
    assert tuned.counts["no answer text"] == 1 and tuned.counts["learned_rows"] == len(TALKS)
    assert np.isnan(tuned.row_losses[-1]) and np.isfinite(tuned.row_losses[:-1]).all()
    with pytest.raises(PoolError, match="none of 1 rows has an answer token to learn from"):
        tune(pool, rows=np.array([6]))
    with pytest.raises(PoolError, match="asked on no rows"):
        tune(pool, rows=np.array([], dtype=np.int64))


def test_long_rows_are_cut_and_counted(tune: Callable[..., Tuned]) -> None:
    tuned = tune(pool_of([talk("a " * 300, "b c"), talk("a", "b")]))
    assert tuned.counts["cut"] == 1 and tuned.counts["tokens"] < 3 * (WINDOW + 40)


def test_too_little_memory_is_said_before_loading_with_what_would_fit(
    tune: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coretune.tuning import memory, training

    monkeypatch.setattr(training, "load", lambda job: pytest.fail("loaded"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 << 20)
    with pytest.raises(ModelError, match=r"needs about .* GiB are free .*; it would fit with .*batch_tokens"):
        tune(batch_tokens=4096)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ModelError, match="a smaller model, or more memory, is needed"):
        tune(batch_tokens=4096)


def test_words_that_mean_nothing_are_refused(model: str, tmp_path: Path) -> None:
    for wrong in ({"rank": 0}, {"schedule": "up"}, {"dropout": 1.0}, {"checkpoints": (1.5,)}, {"targets": ()}):
        with pytest.raises(ValueError, match="asked"):
            Tuning(model, **wrong)  # type: ignore[arg-type]
    lab = Lab(tmp_path)
    for weights in ([1.0], [-1.0] * 6, [np.nan] * 6, [0.0] * 6):
        with pytest.raises(ValueError, match="weights"):
            lab.tune(Tuning(model), pool_of(TALKS), weights=np.array(weights))


# Store and resume


def test_what_is_stored_is_not_tuned_again_and_is_listed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coretune import store
    from coretune.tuning import training

    lab, spec, told = Lab(tmp_path), Tuning(model, batch_rows=3, rank=2), []
    lab.progress = lambda *said: told.append(said)
    one = lab.tune(spec, pool_of(TALKS))
    assert told[-1] == ("tune tiny", 6, 6) and lab.stages[-1].rows == 6 and lab.stages[-1].bytes > 1000
    monkeypatch.setattr(training, "load", lambda job: pytest.fail("tuned again"))
    again = lab.tune(spec, pool_of(TALKS), weights=np.ones(6))
    assert again.path == one.path and lab.stages[-1].stored == 6 and lab.stages[-1].rows == 0
    (entry,) = store.listing(tmp_path)
    assert (entry.room, entry.rows) == ("tunings", 6) and entry.made_from.startswith("Tuning 1 (alpha: 32")
    store.prune(tmp_path, addresses=[one.address])
    assert find_tuned(one.path.parents[2]) is None and store.listing(tmp_path) == []


def test_no_finished_file_is_pickled(tune: Callable[..., Tuned]) -> None:
    folder = tune().path.parents[1]
    assert {each.suffix for each in folder.rglob("*") if each.is_file()} == {".safetensors", ".npy", ".json"}
    assert [each.name for each in folder.parent.iterdir() if each.is_dir()] == [folder.name]


@pytest.mark.parametrize("rank", [4, None])
def test_after_an_error_it_goes_on_to_the_very_same_weights(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int | None
) -> None:
    from coretune.tuning import recording

    monkeypatch.setattr(recording, "RESUME_SECONDS", 0.0)
    monkeypatch.setattr(recording, "RESUME_SHARE", 0.0)
    spec = Tuning(model, batch_rows=3, rank=rank, dropout=0.1, checkpoints=(2, 4), precision="float32")
    whole = Lab(tmp_path / "whole").tune(spec, pool_of(TALKS))
    lab, seen = Lab(tmp_path / "parts"), []

    def stop(at: int) -> Callable[[int, int, float], None]:
        def each_step(step: int, steps: int, loss: float) -> None:
            seen.append(step)
            if step == at:
                raise KeyboardInterrupt

        return each_step

    for at in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            lab.tune(spec, pool_of(TALKS), each_step=stop(at))
    parts = lab.tune(spec, pool_of(TALKS), each_step=stop(-1))
    assert seen == [1, 2, 2, 3, 4, 5, 5, 6]
    assert same(whole, parts) and np.array_equal(whole.visits, parts.visits)
    assert [each.digest for each in whole.checkpoints] == [each.digest for each in parts.checkpoints]
    assert not (parts.path.parents[2] / "work").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from coretune.features.lora_gradient import AdapterAt
from coretune.lab import Lab
from coretune.tuning import Tuning, recording
from tests.test_tuning import TALKS, pool_of
recording.RESUME_SECONDS = recording.RESUME_SHARE = 0.0
def each_step(step, steps, loss):
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Lab(Path(sys.argv[2])).tune(
    Tuning(sys.argv[1], batch_rows=3, dropout=0.1, rank=4), pool_of(TALKS), each_step=each_step
)
"""


def test_after_a_kill_it_goes_on_to_the_very_same_weights(model: str, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, model, str(tmp_path / "parts")], cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == -signal.SIGKILL
    spec, steps = Tuning(model, batch_rows=3, dropout=0.1, rank=4), []
    (place,) = (tmp_path / "parts" / "tunings").iterdir()
    (place / "work" / "checkpoint-99").mkdir()  # one that a kill has cut off
    parts = Lab(tmp_path / "parts").tune(spec, pool_of(TALKS), each_step=lambda step, *_: steps.append(step))
    assert steps == [4, 5, 6] and same(parts, Lab(tmp_path / "whole").tune(spec, pool_of(TALKS)))


@pytest.mark.slow
def test_two_processes_give_what_one_gives(model: str, tmp_path: Path) -> None:
    spec = Tuning(model, batch_rows=3, dropout=0.0, rank=4, precision="float32", checkpoints=(2,))
    heard: list[tuple[int, int, float]] = []
    one = Lab(tmp_path / "one").tune(spec, pool_of(TALKS))
    two = Lab(tmp_path / "two").tune(spec, pool_of(TALKS), processes=2, each_step=lambda *said: heard.append(said))
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-5)
    np.testing.assert_allclose(one.row_losses, two.row_losses, rtol=1e-5)
    for name, values in tensors(one).items():
        np.testing.assert_allclose(values, tensors(two)[name], atol=1e-5)
    assert [step for step, _, _ in heard] == list(range(1, 7)) and len(two.checkpoints) == 2
    with pytest.raises(ValueError, match="4 processes asked for steps of 3 rows"):
        Lab(tmp_path / "four").tune(spec, pool_of(TALKS), processes=4)


@pytest.mark.slow
def test_an_error_in_a_process_is_said_here(model: str, tmp_path: Path) -> None:
    spec = Tuning(model, batch_rows=3, learning_rate=1e30, max_norm=None, rank=None, precision="float32", warmup=0)
    with pytest.raises(CoretuneError, match=r"loss of step \d is not finite; try a lower learning_rate than 1e\+30"):
        Lab(tmp_path).tune(spec, pool_of(TALKS), processes=2)


def test_a_tuning_goes_on_from_the_weights_of_another(tune: Callable[..., Tuned], model: str) -> None:
    first = tune(epochs=4)
    start = AdapterAt(first.checkpoints[-1].digest, str(first.path), 0.5)
    still = tune(start=start, learning_rate=1e-30, epochs=1)
    assert same(first, still) and still.address != tune(learning_rate=1e-30, epochs=1).address
    further = tune(start=start, epochs=4)
    assert further.losses[0] == pytest.approx(still.losses[0]) and further.losses[-1] < first.losses[-1]
    assert tune(start=dataclasses.replace(start, path="elsewhere", weight=1.0), epochs=4).address == further.address
    with pytest.raises(ModelError, match=r"rank and alpha are \(4, 32.0\), not \(2, 32.0\)"):
        tune(start=start, rank=2)
    with pytest.raises(ModelError, match=r"layer \S*proj\S* is only in one of them"):
        tune(start=start, targets=("q_proj",))
    with pytest.raises(ModelError, match="is not the one that was meant"):
        tune(start=dataclasses.replace(start, digest="0" * 32))
    with pytest.raises(ValueError, match="a start from an adapter asked of a tuning of all weights"):
        tune(start=start, rank=None)


def test_an_option_that_came_later_leaves_old_addresses_as_they_were(model: str) -> None:
    said = spec_words(Tuning(model))["fields"]
    assert "start" not in said and "start" in spec_words(Tuning(model, start=AdapterAt("0", "p")))["fields"]
