"""LoRA gradients: against autograd one example at a time, whatever the neighbours, for several families of models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch

from coretune.chat import KINDS, Refused, chat_tokenizer, encode
from coretune.errors import ModelError
from coretune.features._answers import answers_of
from coretune.features._batches import batches
from coretune.features._causal import refuse_looking_ahead
from coretune.features._conversations import UNSEEN
from coretune.features._gradients import WatchedModel
from coretune.features._lora import LoraWatch, read_adapters
from coretune.features._sketch import places_of
from coretune.features.lora_gradient import AdapterAt, LoraGradient
from coretune.pool import Example
from tests.laws.feature_examples import varied_pool
from tests.made_adapters import adapter_folder, optimizer_file, quiet_peft
from tests.made_models import causal_folder, no_bars

D = 64
SMALL = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "llama": (SMALL, ("q_proj", "o_proj", "down_proj")),
    "gemma2": ({**SMALL, "final_logit_softcapping": 0.5, "sliding_window": 8}, ("q_proj", "v_proj")),
    "cohere": ({**SMALL, "logit_scale": 0.3}, ("k_proj", "up_proj")),
    "granite": ({**SMALL, "logits_scaling": 3.0, "residual_multiplier": 0.5}, ("v_proj",)),
    "gpt2": ({"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}, ("c_attn", "c_proj")),
    "qwen3_moe": ({**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}, ("q_proj",)),
    "falcon_h1": ({**SMALL, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_state": 8}, ("q_proj",)),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterAt]:
    """Two checkpoints of an adapter, with optimizer states."""
    made = []
    for seed in range(2):
        folder = adapter_folder(tmp_path_factory.mktemp("adapter"), model, seed=seed)
        optimizer_file(folder, seed=seed, step=3 + seed)
        made.append(AdapterAt(f"digest {seed}", str(folder), 1.0 + 2 * seed))
    return made


@pytest.fixture
def spec(model: Path, adapters: list[AdapterAt]) -> LoraGradient:
    return LoraGradient(str(model), (adapters[0],), d=D, precision="float32", batch_tokens=128)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    pool = varied_pool()
    return pool.examples(np.arange(len(pool)))


def autograd(model: Path, adapter: Path, ids: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The gradient of one example's mean answer loss by every factor, B's transposed: PEFT and autograd, batch 1."""
    import peft
    from transformers import AutoModelForCausalLM

    with quiet_peft(), no_bars():
        base = AutoModelForCausalLM.from_pretrained(model)
        tuned = peft.PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
    labels = torch.from_numpy(np.where(mask, ids, -100).astype(np.int64))
    logits = tuned(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits.float(), labels[1:]).backward()
    return {
        name.replace(".default", ""): (weight.grad.T if "lora_B" in name else weight.grad).flatten().numpy()
        for name, weight in tuned.named_parameters()
        if weight.requires_grad
    }


def sketched(gradients: dict[str, np.ndarray], seed: int = 0) -> np.ndarray:
    """The sum over the parameters of their sketches, entry by entry."""
    out = np.zeros(D)
    for name, g in gradients.items():
        places, entry = places_of(name, len(g), D, seed), np.arange(len(g))
        np.add.at(out, (entry % D + places.offsets[entry // D]) % D, places.signs * g.astype(np.float64))
    return out


def conversation(model: Path, example: Example, most: int = 64) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        one = encode(chat_tokenizer(str(model)), example.messages, tools=example.tools, max_tokens=most)
    except Refused:
        return None
    return (one.ids, one.answer_mask) if one.answer_mask[1:].any() else None


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_factor_s_gradient_is_autograd_s(family: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """Rows of several lengths in one padded batch, against one at a time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config, targets = FAMILIES[family]
    torch.manual_seed(0)
    with no_bars():
        AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).save_pretrained(tmp_path / "model")
        adapter = adapter_folder(tmp_path / "adapter", tmp_path / "model", target_modules=list(targets))
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    (factors,) = read_adapters(base, [adapter])
    refuse_looking_ahead(base, family, "cpu")
    watched = WatchedModel(base, factors, "cpu", positions=16)
    ids = [rng.integers(1, 512, size=size) for size in (30, 17, 32, 21)]
    masks = [rng.random(len(row)) < 0.5 for row in ids]
    seen: dict[str, np.ndarray] = {}
    (batch,) = batches(ids, 32, 128, 0)
    watch = LoraWatch(factors, lambda name, entries: seen.update({name: entries.numpy()}))
    watched.backward(batch, answers_of(batch, masks, 16), watch)
    for row, piece in enumerate(batch.pieces):
        want = autograd(tmp_path / "model", adapter, ids[piece], masks[piece])
        assert want.keys() == seen.keys()
        for name, g in want.items():
            assert np.abs(seen[name][row] - g).max() <= 1e-5 * np.abs(g).max(), name


def test_values_and_norms_are_the_sketched_gradient(
    spec: LoraGradient, model: Path, adapters: list[AdapterAt], examples: list[Example]
) -> None:
    """With turns, other scripts, cuts and rows that have no gradient."""
    found = spec.load()(examples)
    assert found.values.dtype == np.float16 and found.numbers["norm"].dtype == np.float32
    for row, example in enumerate(examples):
        read = conversation(model, example)
        if read is None:
            assert np.isnan(found.values[row]).all() and np.isnan(found.numbers["norm"][row])
            continue
        want = sketched(autograd(model, Path(adapters[0].path), *read))
        norm = np.linalg.norm(want)
        assert found.numbers["norm"][row] == pytest.approx(norm, rel=1e-5)
        np.testing.assert_allclose(found.values[row].astype(np.float64), want / norm, atol=3e-4)


def test_what_befell_a_row_is_marked(spec: LoraGradient, examples: list[Example]) -> None:
    marks = replace(spec, max_tokens=64).load()(examples).marks
    assert marks["truncated"][[2, 3, 4]].all() and marks["answer_cut"][[3, 4]].all() and not marks["answer_cut"][2]
    assert marks[KINDS["no_answer"]][10] and not marks[KINDS["no_answer"]][[0, 9]].any()
    alone = replace(spec, max_tokens=1).load()(examples[:2])
    assert alone.marks[UNSEEN].all() and np.isnan(alone.values).all()


@pytest.mark.parametrize("precision, least", [("float32", 0.999999), ("bfloat16", 0.9999)])
def test_neighbours_and_padding_do_not_matter(
    spec: LoraGradient, examples: list[Example], precision: Any, least: float
) -> None:
    spec = replace(spec, precision=precision)
    together = spec.load()(examples)
    alone = replace(spec, batch_tokens=1).load()
    some = [row for row in (0, 3, 4, 5, 8, 9, 13, 20, 27) if np.isfinite(together.numbers["norm"][row])]
    apart = [alone([examples[row]]) for row in some]
    found = cosines(together.values[some], np.concatenate([each.values for each in apart]))
    assert found.min() > least
    norms = np.concatenate([each.numbers["norm"] for each in apart])
    np.testing.assert_allclose(together.numbers["norm"][some], norms, rtol=1e-5 if precision == "float32" else 2e-2)


@pytest.mark.parametrize("direction", ["adam", "less"])
def test_adam_s_directions_follow_their_formulas(
    spec: LoraGradient, model: Path, adapters: list[AdapterAt], examples: list[Example], direction: Any
) -> None:
    found = replace(spec, direction=direction).load()(examples[:2])
    state = optimizer_file(Path(adapters[0].path), seed=0, step=3)
    for row in range(2):
        read = conversation(model, examples[row])
        assert read is not None
        steps = {}
        for name, g in autograd(model, Path(adapters[0].path), *read).items():
            m, v = (state[f"{kind}.{name}"].double() for kind in ("exp_avg", "exp_avg_sq"))
            m, v = ((each.T if "lora_B" in name else each).flatten().numpy() for each in (m, v))
            if direction == "less":
                steps[name] = (0.9 * m + 0.1 * g) / np.sqrt(0.999 * v + 0.001 * g**2 + 1e-8)
            else:
                mean, square = (0.9 * m + 0.1 * g) / (1 - 0.9**4), (0.999 * v + 0.001 * g**2) / (1 - 0.999**4)
                steps[name] = mean / (np.sqrt(square) + 1e-8)
        want = sketched(steps)
        assert found.numbers["norm"][row] == pytest.approx(np.linalg.norm(want), rel=1e-4)
        np.testing.assert_allclose(found.values[row].astype(float), want / np.linalg.norm(want), atol=4e-4)


def test_several_checkpoints_give_the_weighted_mean_of_unit_rows(
    spec: LoraGradient, adapters: list[AdapterAt], examples: list[Example]
) -> None:
    both = replace(spec, adapters=tuple(adapters), direction="less").load()(examples)
    apart = [replace(spec, adapters=(each,), direction="less").load()(examples) for each in adapters]
    want = sum(at.weight / 4 * each.values.astype(np.float64) for at, each in zip(adapters, apart, strict=True))
    got = both.values.astype(np.float64) * both.numbers["norm"][:, None]
    np.testing.assert_allclose(got, want, atol=6e-4)
    assert np.nanmax(both.numbers["norm"]) <= 1 + 1e-6


def test_scaling_the_weights_of_checkpoints_changes_nothing(
    spec: LoraGradient, adapters: list[AdapterAt], examples: list[Example]
) -> None:
    scaled = tuple(replace(each, weight=each.weight * 1e-5) for each in adapters)
    one, other = (replace(spec, adapters=each).load()(examples[:3]) for each in (tuple(adapters), scaled))
    np.testing.assert_allclose(one.values, other.values, atol=5e-4)


def test_seeds_give_other_sketches_of_the_same_gradients(spec: LoraGradient, examples: list[Example]) -> None:
    wide = replace(spec, d=4096)
    one, other = wide.load()(examples[13:25]), replace(wide, seed=1).load()(examples[13:25])
    assert np.abs(cosines(one.values, other.values)).max() < 0.1
    grams = [each.values.astype(np.float64) @ each.values.astype(np.float64).T for each in (one, other)]
    assert np.abs(grams[0] - grams[1]).max() < 0.15
    np.testing.assert_allclose(one.numbers["norm"], other.numbers["norm"], rtol=0.15)


def test_threads_may_measure_at_once(spec: LoraGradient, adapters: list[AdapterAt], examples: list[Example]) -> None:
    measure = replace(spec, adapters=tuple(adapters)).load()
    want = measure(examples)
    got: dict[int, Any] = {}
    threads = [Thread(target=lambda i=i: got.update({i: measure(examples)})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in got.values():
        np.testing.assert_array_equal(each.values, want.values)
    assert len(got) == 3


def test_a_zero_factor_b_gives_gradients_of_b_alone(
    spec: LoraGradient, model: Path, examples: list[Example], tmp_path: Path
) -> None:
    """An adapter before any training: A's gradient is 0 and the vector is B's."""
    import safetensors.torch as st

    folder = adapter_folder(tmp_path / "fresh", model)
    file = folder / "adapter_model.safetensors"
    weights = {name: weight * ("lora_B" not in name) for name, weight in st.load_file(file).items()}
    st.save_file(weights, file, metadata={"format": "pt"})
    found = replace(spec, adapters=(AdapterAt("fresh", str(folder)),)).load()(examples[:1])
    want = autograd(model, folder, *(conversation(model, examples[0]) or ()))
    np.testing.assert_allclose(
        found.values[0].astype(float) * found.numbers["norm"][0],
        sketched({name: g for name, g in want.items() if "lora_B" in name}),
        atol=1e-3 * found.numbers["norm"][0],
    )


def test_an_empty_call_gives_empty_arrays(spec: LoraGradient) -> None:
    assert spec.load()([]).values.shape == (0, D)


Change = Callable[[LoraGradient, Path, Path], LoraGradient]
REFUSED: dict[str, tuple[Change, str]] = {
    "no adapter": (lambda spec, model, there: replace(spec, adapters=()), "needs an adapter"),
    "no such folder": (lambda spec, model, there: at(spec, there / "nowhere"), "holds no adapter"),
    "no optimizer state": (
        lambda spec, model, there: replace(at(spec, adapter_folder(there, model)), direction="adam"),
        "optimizer.safetensors",
    ),
    "dora": (lambda spec, model, there: at(spec, adapter_folder(there, model, use_dora=True)), "use_dora"),
    "other modules": (
        lambda spec, model, there: at(spec, adapter_folder(there, model, modules_to_save=["lm_head"])),
        "modules_to_save",
    ),
    "two ranks": (
        lambda spec, model, there: replace(
            spec, adapters=(*spec.adapters, AdapterAt("", str(adapter_folder(there, model, rank=2))))
        ),
        "differ in rank",
    ),
    "another tokenizer": (lambda spec, model, there: replace(spec.resolved(), tokenizer="0" * 32), "tokenizer of"),
    "another model": (lambda spec, model, there: replace(spec.resolved(), digest="0" * 32), "model of"),
}


def at(spec: LoraGradient, folder: Path) -> LoraGradient:
    return replace(spec, adapters=(AdapterAt("", str(folder)),))


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_measured_is_refused(what: str, spec: LoraGradient, model: Path, tmp_path: Path) -> None:
    change, said = REFUSED[what]
    with pytest.raises(ModelError, match=said):
        change(spec, model, tmp_path / "adapter").load()


def test_an_adapter_of_another_model_is_refused(spec: LoraGradient, model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = adapter_folder(tmp_path, model)
    weights = load_file(folder / "adapter_model.safetensors")
    moved = next(iter(weights))
    weights[moved.replace("layers.0", "layers.7")] = weights.pop(moved)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="does not fit the model"):
        at(spec, folder).load()


def test_a_model_that_looks_ahead_is_refused(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    with no_bars():
        base = AutoModelForCausalLM.from_pretrained(model)
    for layer in base.model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ModelError, match="see later ones"):
        refuse_looking_ahead(base, "made", "cpu")


@pytest.mark.parametrize(
    "wrong", [{"direction": "sgd"}, {"d": 0}, {"precision": "float16"}, {"max_tokens": 0}, {"batch_tokens": 0}]
)
def test_fields_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoraGradient("m", **wrong)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (0.0, 0.0), (float("nan"), 1.0)])
def test_weights_that_make_no_mean_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="adapters weigh"):
        LoraGradient("m", tuple(AdapterAt("", "", weight) for weight in weights))


def test_what_a_vector_takes_is_known(spec: LoraGradient) -> None:
    assert 2 * D + 4 <= spec.row_bytes <= 2 * D + 64
