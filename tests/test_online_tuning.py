"""Tunings that choose their rows while they run: what the chooser is told, what it costs, and going on after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coretune.errors import CoretuneError
from coretune.lab import Lab
from coretune.orders import Gradient
from coretune.orders.highest_loss import HighestLoss
from coretune.orders.lead import Lead, LeadChooser
from coretune.tuning import Tuned, Tuning
from tests.made_pools import pool_of

N = 24
PLAIN: dict[str, Any] = {
    "precision": "float32", "batch_rows": 3, "learning_rate": 1e-2, "rank": 4, "dropout": 0.1, "average": "rows",
    "batch_tokens": 128,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tests.made_models import causal_folder

    return str(causal_folder(tmp_path_factory.mktemp("models") / "tiny"))


def lead(**options: Any) -> Lead:
    """An order of 24 rows, in two clusters, of which 9 are to be learned."""
    losses = np.random.default_rng(0).uniform(1, 3, N).astype(np.float32)
    places = np.arange(N)
    given: dict[str, Any] = {"budget": 9, "share": 0.3, **options}
    return Lead(losses, (places % 2).astype(np.int32), (places // 12).astype(np.int32), **given)


@pytest.fixture
def tune(model: str, tmp_path: Path) -> Callable[..., Tuned]:
    def run(order: Any, store: str = "store", *, each_step: Any = None, **options: Any) -> Tuned:
        spec = Tuning(model, **{**PLAIN, **options})
        return Lab(tmp_path / store).tune(spec, pool_of(tmp_path, N), order=order, each_step=each_step)

    return run


def weights_of(tuned: Tuned) -> bytes:
    return (tuned.path / "adapter_model.safetensors").read_bytes()


def test_rows_losses_and_rates_are_those_of_the_chooser_told_the_same_again(tune: Callable[..., Tuned]) -> None:
    order = lead()
    tuned = tune(order)
    visits, chooser = tuned.visits, order.start(np.ones(N, dtype=bool), batch_rows=3, seed=0)
    no_gradient = Gradient(0.0, np.zeros(1, np.float32), 0.0)
    for step in range(1, int(visits["step"].max()) + 1):
        mine = visits[visits["step"] == step]
        if len(chooser.rounds["cell"]) == 1:
            break  # gradients count from the second round on
        assert sorted(chooser.rows(step).tolist()) == mine["row"].tolist()
        losses = dict(zip(mine["row"].tolist(), mine["loss"].tolist(), strict=True))
        rows = chooser.rows(step)
        chooser.seen(step, rows, np.array([losses[row] for row in rows.tolist()]), no_gradient)
    assert len(np.unique(visits["row"])) == 9
    steps = int(visits["step"].max())
    assert len(tuned.losses) == len(tuned.learning_rates) == tuned.counts["steps"] == steps > 3
    np.testing.assert_allclose(tuned.learning_rates, [1e-2 * 0.995 ** (step // 8) for step in range(steps)])
    np.testing.assert_allclose(tuned.losses, [visits["loss"][visits["step"] == s + 1].mean() for s in range(steps)])
    state = tuned.order
    assert sorted(state["visit_row"].tolist()) == sorted(visits["row"].tolist())
    assert state["round_end"][-1] == steps and tuned.checkpoints[-1].step == steps
    assert np.array_equal(state["uses"], np.bincount(visits["row"], minlength=N))
    assert tuned.counts["learned_rows"] == 9 and np.isfinite(tuned.row_losses).sum() == 9


def test_the_gradient_told_is_that_of_a_hand_made_step(
    tune: Callable[..., Tuned], model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from coretune.chat import chat_tokenizer
    from coretune.models import load_causal_lm
    from tests.test_tuning import row_loss

    told: list[tuple[np.ndarray, np.ndarray, Gradient]] = []
    seen = LeadChooser.seen

    def listen(self: LeadChooser, step: int, rows: Any, losses: Any, gradient: Any) -> None:
        told.append((rows, losses, gradient))
        seen(self, step, rows, losses, gradient)

    monkeypatch.setattr(LeadChooser, "seen", listen)
    tune(lead(), dropout=0.0, max_norm=1e-3)  # clipped hard, which must not show
    rows, losses, gradient = told[0]
    torch.manual_seed(0)
    with pytest.warns(FutureWarning):
        config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        twin: Any = get_peft_model(load_causal_lm(model), config)
    tokenizer, pool = chat_tokenizer(model), pool_of(tmp_path, N)
    means = [total / count for total, count in (row_loss(twin, tokenizer, pool[int(row)].messages) for row in rows)]
    np.testing.assert_allclose(losses, [each.item() for each in means], rtol=1e-5)
    (sum(means) / len(means)).backward()
    grads = {name: each.grad for name, each in twin.named_parameters() if each.grad is not None}
    squared = sum(float((each**2).sum()) for each in grads.values())
    assert gradient.squared_norm == pytest.approx(squared, rel=1e-3) and squared > 1e-4
    last = [each.flatten() for name, each in grads.items() if "layers.1.mlp.down_proj.lora" in name]
    expected = torch.cat(last).numpy()
    assert len(last) == 2 and gradient.vector.dtype == np.float32
    np.testing.assert_allclose(gradient.vector, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert gradient.learning_rate == pytest.approx(1e-2)


def test_there_is_no_forward_pass_but_those_of_training(
    tune: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    rows, plain = [0], LlamaForCausalLM.forward

    def counting(self: Any, input_ids: Any = None, **others: Any) -> Any:
        rows[0] += len(input_ids)
        return plain(self, input_ids=input_ids, **others)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counting)
    tuned = tune(lead(), batch_tokens=64)  # a row a batch
    assert rows[0] == len(tuned.visits) > 9


def test_the_order_is_part_of_the_address_and_what_is_stored_is_given(
    tune: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    from coretune.tuning import training

    one, other, plain = tune(lead()), tune(lead(memory=0.2)), tune(None, epochs=1)
    assert len({one.address, other.address, plain.address}) == 3 and plain.order == {}
    monkeypatch.setattr(training, "load", lambda job: pytest.fail("tuned again"))
    assert tune(lead()).path == one.path


def test_two_runs_are_one_to_the_last_bit(tune: Callable[..., Tuned]) -> None:
    one, again, other = tune(lead()), tune(lead(), store="another"), tune(lead(), seed=1)
    assert weights_of(one) == weights_of(again) != weights_of(other)
    assert np.array_equal(one.visits, again.visits) and not np.array_equal(one.visits, other.visits)


@pytest.mark.parametrize("order", [lead(keep_rounds=True), HighestLoss(8)], ids=["lead", "highest_loss"])
def test_after_errors_it_goes_on_to_the_very_same_weights(
    tune: Callable[..., Tuned], monkeypatch: pytest.MonkeyPatch, order: Any
) -> None:
    from coretune.tuning import recording

    monkeypatch.setattr(recording, "RESUME_SECONDS", 0.0)
    monkeypatch.setattr(recording, "RESUME_SHARE", 0.0)
    whole, seen = tune(order, store="whole"), []

    def stop(at: int) -> Callable[[int, int, float], None]:
        def each_step(step: int, steps: int, loss: float) -> None:
            seen.append(step)
            if step == at:
                raise KeyboardInterrupt

        return each_step

    for at in (2, 4, 5):
        with pytest.raises(KeyboardInterrupt):
            tune(order, each_step=stop(at))
    parts = tune(order, each_step=stop(-1))
    assert seen == [1, 2, 2, 3, 4, 4, 5, 5, *range(6, len(whole.losses) + 1)]
    assert weights_of(whole) == weights_of(parts) and np.array_equal(whole.visits, parts.visits)
    assert np.array_equal(whole.learning_rates, parts.learning_rates)
    assert [each.digest for each in whole.checkpoints] == [each.digest for each in parts.checkpoints]
    for name, values in whole.order.items():
        np.testing.assert_array_equal(values, parts.order[name])


KILLED = """
import os, signal, sys
from pathlib import Path
from coretune.lab import Lab
from coretune.tuning import Tuning, recording
from tests.made_pools import pool_of
from tests.test_online_tuning import N, PLAIN, lead
recording.RESUME_SECONDS = recording.RESUME_SHARE = 0.0
def each_step(step, steps, loss):
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[2])
Lab(folder / "parts").tune(Tuning(sys.argv[1], **PLAIN), pool_of(folder, N), order=lead(), each_step=each_step)
"""


def test_after_a_kill_it_goes_on_to_the_very_same_weights(
    tune: Callable[..., Tuned], model: str, tmp_path: Path
) -> None:
    root = str(Path(__file__).parents[1])
    for at in (3, 5):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, model, str(tmp_path), str(at)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": root},
        )
        assert done.returncode == -signal.SIGKILL
    steps: list[int] = []
    parts = tune(lead(), store="parts", each_step=lambda step, *_: steps.append(step))
    whole = tune(lead(), store="whole")
    assert steps[0] == 5 and parts.address == whole.address
    assert weights_of(whole) == weights_of(parts) and np.array_equal(whole.visits, parts.visits)


def test_weights_after_each_round_are_kept_where_that_is_asked(tune: Callable[..., Tuned]) -> None:
    tuned = tune(lead(keep_rounds=True))
    assert [each.step for each in tuned.checkpoints] == tuned.order["round_end"].tolist()
    assert len({each.digest for each in tuned.checkpoints}) == len(tuned.checkpoints) > 2
    assert len(tune(lead(), checkpoints=(2,)).checkpoints) == 2
    assert {each.suffix for each in tuned.path.parents[1].rglob("*") if each.is_file()} == {
        ".safetensors", ".npy", ".json"
    }  # fmt: skip


def test_an_order_without_rates_has_the_tunings_schedule_and_may_tune_all_weights(tune: Callable[..., Tuned]) -> None:
    from coretune.tuning.schedule import learning_rates

    tuned = tune(HighestLoss(6), rank=None, learning_rate=1e-3, warmup=0.3, dropout=0.0)
    spec = Tuning("m", learning_rate=1e-3, warmup=0.3)
    np.testing.assert_allclose(tuned.learning_rates, learning_rates(spec, 6), rtol=1e-12)
    assert len(tuned.losses) == 6 and len(tuned.visits) == 18
    assert len(np.unique(tuned.visits["row"])) >= 15  # unseen ones come first


def test_rows_without_answers_are_never_chosen(model: str, tmp_path: Path) -> None:
    from tests.test_tuning import TALKS
    from tests.test_tuning import pool_of as talks

    pool = talks([*TALKS, [("user", "nobody answers")]])
    tuned = Lab(tmp_path).tune(Tuning(model, **PLAIN), pool, order=HighestLoss(8, at_random=0.5))
    assert set(tuned.visits["row"].tolist()) == set(range(len(TALKS)))


def test_what_cannot_be_is_refused_before_the_model_is_loaded(
    tune: Callable[..., Tuned], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coretune.tuning import training

    monkeypatch.setattr(training, "load", lambda job: pytest.fail("loaded"))
    with pytest.raises(ValueError, match="how many steps it will have is not known"):
        tune(lead(), checkpoints=(0.5,))
    with pytest.raises(ValueError, match="rank none tunes all weights"):
        tune(lead(), rank=None)
    with pytest.raises(ValueError, match="order of 24 rows was given to a training of 5"):
        Lab(tmp_path).tune(Tuning(model, **PLAIN), pool_of(tmp_path, N), np.arange(5), order=lead())
    with pytest.raises(ValueError, match="2 processes asked of a training that chooses its rows"):
        Lab(tmp_path).tune(Tuning(model, **PLAIN), pool_of(tmp_path, N), order=lead(), processes=2)


def test_a_checkpoint_that_never_came_is_said(tune: Callable[..., Tuned], caplog: pytest.LogCaptureFixture) -> None:
    order = lead(budget=3)
    most = order.start(np.ones(N, dtype=bool), batch_rows=3, seed=0).most_steps
    tune(order, checkpoints=(most - 1,))
    assert f"checkpoints at steps [{most - 1}] were asked" in caplog.text


def test_a_loss_that_is_not_finite_ends_it(tune: Callable[..., Tuned]) -> None:
    with pytest.raises(CoretuneError, match="not finite"):
        tune(HighestLoss(30), learning_rate=1e30, max_norm=None, dropout=0.0, warmup=0.0)
