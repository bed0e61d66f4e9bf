"""Orders inside ordinary trainers: what is trained, what is told of it, what it costs, and going on after a kill."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from coretune.errors import CoretuneError
from coretune.integrations._loader import dealt
from coretune.orders import Chooser
from coretune.orders.highest_loss import HighestLoss
from coretune.orders.lead import Lead
from tests.made_models import causal_folder, no_bars

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install 'trl>=1.16'")

ROWS = 11
TALKS = [
    {
        "prompt": [{"role": "user", "content": f"Name {'colour ' * (i % 3)}{i}"}],
        "completion": [{"role": "assistant", "content": "Blue " * (1 + i * 3 % 5) + str(i)}],
    }
    for i in range(ROWS)
]
MARKED = (
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|eot_id|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|eot_id|>{% endif %}{% endfor %}"
)
QUIET = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return causal_folder(tmp_path_factory.mktemp("models") / "tiny")


@contextmanager
def quiet():
    """Without what transformers, TRL and PEFT say about each other, and without bars."""
    import datasets

    with warnings.catch_warnings(), no_bars():
        warnings.simplefilter("ignore")
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


def loaded(folder, lora=False):
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    if not lora:
        return model
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    with quiet():
        return peft.get_peft_model(model, config)


def sft(folder, out, *, talks=TALKS, marked=False, lora=False, callbacks=None, **options):
    """An SFTTrainer as a user would make it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if marked:
        tokenizer.chat_template = MARKED
    asked = {"max_steps": 4, "per_device_train_batch_size": 2, "max_length": 64, "save_strategy": "no", "bf16": False}
    asked |= {"gradient_checkpointing": False, "lr_scheduler_type": "constant", "output_dir": str(out), **QUIET}
    with quiet():
        args = trl.SFTConfig(**asked | options)
        data = dataset(talks)
        made = trl.SFTTrainer(
            loaded(folder, lora), args, train_dataset=data, processing_class=tokenizer, callbacks=callbacks
        )
        made.remove_callback(_printer())
    return made


def dataset(rows):
    import datasets

    return datasets.Dataset.from_list(rows)


def encoded():
    """Rows with ids and labels, as no template makes them: learned tokens in two places."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        ids = rng.integers(5, 400, 6 + i).tolist()
        labels = [-100, -100, *ids[2:4], -100, *ids[5:]]
        rows.append({"input_ids": ids, "labels": labels, "topic": "a column that no model takes"})
    return rows


def plain(folder, out, *, lora=False, data=None, **options):
    """A Trainer of transformers, with its collator for labels."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    asked = {"max_steps": 4, "per_device_train_batch_size": 2, "save_strategy": "no", "output_dir": str(out), **QUIET}
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.pad_token = tokenizer.eos_token
        made = Trainer(
            loaded(folder, lora),
            TrainingArguments(**asked | {"lr_scheduler_type": "constant"} | options),
            data_collator=DataCollatorForSeq2Seq(tokenizer),
            train_dataset=dataset(encoded()) if data is None else data,
        )
        made.remove_callback(_printer())
    return made


def _printer():
    from transformers import PrinterCallback

    return PrinterCallback


def train(trainer, order, **more):
    from coretune.integrations.trl import attach

    following = attach(trainer, order)
    with quiet():
        trainer.train(**more)
    return following


class Listed:
    """A chooser that gives these rows, step by step, and writes down all that it hears."""

    keep = False

    def __init__(self, rows, *, rates=None, wants_gradient=False) -> None:
        self.steps, self.rates, self.wants_gradient = [np.array(each) for each in rows], rates, wants_gradient
        self.heard, self.log, self.step = [], [], 0

    @property
    def most_steps(self):
        return len(self.steps)

    @property
    def over(self):
        return self.step == len(self.steps)

    def rows(self, step):
        assert step == self.step + 1
        self.log.append(("rows", step))
        return self.steps[step - 1]

    def rate(self, step):
        return None if self.rates is None else self.rates[step - 1]

    def seen(self, step, rows, losses, gradient):
        assert step == self.step + 1 and np.array_equal(rows, self.steps[step - 1])
        self.log.append(("seen", step))
        self.heard.append((losses, gradient))
        self.step = step

    def state(self):
        return {"step": np.array(self.step)}

    def restore(self, state):
        self.step = int(state["step"])


def by_hand(model, row):
    """The mean loss of a row's learned tokens, from a pass over this row alone."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
    said = torch.log_softmax(logits, -1)
    places = [(i, label) for i, label in enumerate(row["labels"][1:]) if label != -100]
    return -sum(float(said[i, label]) for i, label in places) / len(places)


SOME = [[3, 1], [10, 4], [4, 0], [2, 9]]


@pytest.mark.parametrize("kind", ["completion", "assistant", "whole", "labels", "smoothed", "plain"])
def test_losses_of_rows_are_those_of_a_pass_over_each_alone(folder, tmp_path, kind) -> None:
    still = {"learning_rate": 0.0}
    talks = [{"messages": each["prompt"] + each["completion"] + each["prompt"]} for each in TALKS]
    if kind == "plain":
        trainer = plain(folder, tmp_path, **still)
    elif kind == "assistant":
        trainer = sft(folder, tmp_path, talks=talks, marked=True, assistant_only_loss=True, **still)
    elif kind == "whole":
        trainer = sft(folder, tmp_path, talks=talks, **still)
    elif kind == "labels":
        trainer = sft(folder, tmp_path, talks=encoded(), **still)
    else:
        trainer = sft(folder, tmp_path, label_smoothing_factor=0.1 if kind == "smoothed" else 0.0, **still)
    data = [dict(row) for row in trainer.train_dataset]
    learned = [sum(label != -100 for label in row["labels"]) for row in data]
    assert all(0 < k < len(row["labels"]) for k, row in zip(learned, data, strict=True)) == (kind != "whole")
    chooser = Listed(SOME)
    following = train(trainer, chooser)
    model = loaded(folder)
    expected = [by_hand(model, data[row]) for step in SOME for row in step]
    assert following.visits["row"].tolist() == [row for step in SOME for row in step]
    assert following.visits["step"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    np.testing.assert_allclose(np.concatenate([losses for losses, _ in chooser.heard]), expected, rtol=2e-5)
    np.testing.assert_allclose(following.visits["loss"], expected, rtol=2e-5)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_trained_is_what_was_chosen_in_order_and_nothing_else_passes(folder, tmp_path, parts) -> None:
    steps = [[7, 2, 9, 0], [1, 2, 3, 4], [10, 9, 8, 7]]
    trainer = sft(folder, tmp_path, per_device_train_batch_size=4 // parts, gradient_accumulation_steps=parts)
    passed = []
    trainer.model.register_forward_hook(
        lambda module, args, kwargs, output: passed.append(kwargs["input_ids"].tolist()), with_kwargs=True
    )
    train(trainer, Listed(steps))
    ids = [row["input_ids"] for row in trainer.train_dataset]
    rows = [[ids.index(_unpadded(each, ids)) for each in batch] for batch in passed]
    assert rows == [list(each) for step in steps for each in np.split(np.array(step), parts)]


def _unpadded(ids, known):
    """A row of a batch without its padding."""
    return next(each for each in sorted(known, key=len, reverse=True) if ids[: len(each)] == each)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_chosen_after_the_losses_of_the_one_before_are_known(folder, tmp_path, parts) -> None:
    chooser = Listed([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    train(sft(folder, tmp_path, per_device_train_batch_size=3 // parts, gradient_accumulation_steps=parts), chooser)
    assert chooser.log == [(what, step) for step in (1, 2, 3) for what in ("rows", "seen")]


def test_a_dataloader_that_fetches_ahead_is_found_out(folder, tmp_path) -> None:
    from coretune.integrations.trl import attach

    trainer = sft(folder, tmp_path)
    attach(trainer, Listed(SOME))
    ours = trainer.get_train_dataloader
    trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(ours())  # one batch ahead, as the Trainer's own
    with quiet(), pytest.raises(CoretuneError, match="before the step at hand was over"):
        trainer.train()


def test_the_order_of_the_data_trains_as_the_trainer_does(folder, tmp_path) -> None:
    steps = [[0, 1, 2, 3], [4, 5, 6, 7]]
    options = {"gradient_accumulation_steps": 2, "max_steps": 2, "learning_rate": 1e-2}
    ours, theirs = (plain(folder, tmp_path, **options) for _ in range(2))
    theirs.args.train_sampling_strategy = "sequential"
    train(ours, Listed(steps))
    with quiet():
        theirs.train()
    assert same(ours.model, theirs.model)
    assert not same(ours.model, loaded(folder))


def same(one, other):
    import torch

    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("make", [sft, plain])
def test_a_step_of_fewer_rows_than_batches_trains_those_rows_alone(folder, tmp_path, make) -> None:
    options = {"learning_rate": 1e-2, "max_steps": 1}
    few = make(folder, tmp_path, gradient_accumulation_steps=3, **options)
    one = make(folder, tmp_path, gradient_accumulation_steps=1, **options)
    visits = [train(each, Listed([[5]])).visits for each in (few, one)]
    assert visits[0]["row"].tolist() == [5]
    np.testing.assert_allclose(*(each["loss"] for each in visits), rtol=1e-6)
    for a, b in zip(few.model.parameters(), one.model.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), atol=1e-6)


def test_rows_are_dealt_to_batches_and_processes_each_once() -> None:
    rows = np.arange(100, 110)
    batches = [[*dealt(rows, 2, process, 2)] for process in range(2)]
    assert [[row for _, row in batch] for batch in batches[0]] == [[100, 101, 102], [106, 107]]
    assert [[row for _, row in batch] for batch in batches[1]] == [[103, 104, 105], [108, 109]]
    assert [*dealt(rows[:1], 2, 0, 1)] == [[(0, 100)], [(-1, 100)]]


@pytest.mark.parametrize("lora", [False, True])
def test_the_gradient_is_that_of_the_whole_step_before_clipping(folder, tmp_path, lora) -> None:
    import torch

    options = {"learning_rate": 0.5, "max_grad_norm": 1e-3, "per_device_train_batch_size": 2}
    trainer = plain(folder, tmp_path, lora=lora, gradient_accumulation_steps=2, max_steps=1, **options)
    chooser = Listed([[3, 1, 8, 6], [0, 1, 2, 4]], wants_gradient=True)
    train(trainer, chooser)
    model, data = loaded(folder, lora), encoded()
    total = sum(sum(label != -100 for label in data[row]["labels"][1:]) for row in (3, 1, 8, 6))
    for row in (3, 1, 8, 6):
        ids, labels = (torch.tensor([data[row][name]]) for name in ("input_ids", "labels"))
        logits = model(input_ids=ids).logits[0, :-1]
        (torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum") / total).backward()
    squared = sum(float((each.grad**2).sum()) for each in model.parameters() if each.grad is not None)
    layer = [(name, each.grad) for name, each in model.named_parameters() if ".layers.1." in name]
    if lora:
        wanted = [gradient for name, gradient in layer if "lora_" in name]
        assert len(wanted) == 4
    else:
        wanted = [gradient for name, gradient in layer if name.endswith("down_proj.weight")]
        assert len(wanted) == 1
    said = chooser.heard[0][1]
    assert said.learning_rate == 0.5
    assert said.squared_norm == pytest.approx(squared, rel=1e-4)
    assert said.vector.dtype == np.float32
    np.testing.assert_allclose(said.vector, np.concatenate([each.flatten() for each in wanted]), rtol=1e-3, atol=1e-6)


def test_the_rates_of_an_order_are_those_of_the_training(folder, tmp_path) -> None:
    rates = [1.0, 0.5, 0.5, 0.125]
    trainer = plain(folder, tmp_path, learning_rate=0.25, lr_scheduler_type="linear")
    chooser = Listed(SOME, rates=rates, wants_gradient=True)
    train(trainer, chooser)
    assert [gradient.learning_rate for _, gradient in chooser.heard] == [0.25 * rate for rate in rates]


def test_the_training_ends_with_the_order_and_says_where_it_ends_before(folder, tmp_path, caplog) -> None:
    trainer = plain(folder, tmp_path, max_steps=9)
    train(trainer, Listed(SOME))
    assert trainer.state.global_step == 4
    assert "set max_steps=4" in caplog.text
    caplog.clear()
    trainer = plain(folder, tmp_path, max_steps=3)
    train(trainer, Listed(SOME))
    assert trainer.state.global_step == 3
    assert "the order was not over (at most 4)" in caplog.text


def test_passes_are_counted_as_without_an_order(folder, tmp_path) -> None:
    trainer = plain(folder, tmp_path, max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=2)
    train(trainer, HighestLoss(steps=50))
    assert trainer.state.global_step == 2 * 3  # 11 rows, 4 a step


def lead_of(n):
    losses = np.linspace(3, 2, n).astype(np.float32)
    cell = (np.arange(n) % 2).astype(np.int32)
    return Lead(losses, cell, np.zeros(n, dtype=np.int32), budget=n, share=0.5, decay_steps=1)


def stop_at(step):
    """A callback that breaks the training off before a step, as a kill would."""
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_begin(self, args, state, control, **others):
            if state.global_step == step:
                raise KeyboardInterrupt

    return Stop()


@pytest.mark.parametrize(("make", "lead"), [(sft, False), (plain, True)])
@pytest.mark.parametrize("skip", [False, True])
def test_a_training_goes_on_from_its_checkpoint_with_the_same_rows(folder, tmp_path, make, lead, skip) -> None:
    def made(out):
        options = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1, "learning_rate": 1e-2}
        more = {"lora": lead, "gradient_accumulation_steps": 2, "ignore_data_skip": skip, "max_steps": 7}
        return make(folder, tmp_path / out, **options, **more)

    order = lead_of(ROWS) if lead else HighestLoss(steps=7, at_random=0.3)
    whole, broken, again = made("whole"), made("broken"), made("broken")
    expected = train(whole, order)
    assert whole.state.global_step > 4
    broken.add_callback(stop_at(5))  # in the second pass over the data
    with pytest.raises(KeyboardInterrupt):
        train(broken, order)
    following = train(again, order, resume_from_checkpoint=True)
    np.testing.assert_array_equal(following.visits, expected.visits)
    for name, array in expected.chooser.state().items():
        np.testing.assert_array_equal(following.chooser.state()[name], array)
    assert same(again.model, whole.model)


def test_a_checkpoint_without_an_order_or_with_another_is_refused(folder, tmp_path) -> None:
    options = {"save_strategy": "steps", "save_steps": 2}
    bare = plain(folder, tmp_path, **options, max_steps=2)
    with quiet():
        bare.train()
    with pytest.raises(CoretuneError, match="says nothing of an order"):
        train(plain(folder, tmp_path, **options), Listed(SOME), resume_from_checkpoint=True)
    ours = plain(folder, tmp_path, **options)
    train(ours, Listed(SOME))
    (tmp_path / "checkpoint-4" / "coretune_order.npz").write_bytes(b"cut off")
    with pytest.raises(CoretuneError, match="missing or of another checkpoint"):
        train(plain(folder, tmp_path, **options), Listed(SOME), resume_from_checkpoint=True)
    with quiet(), pytest.raises(CoretuneError, match="followed already"):
        ours.train()


def test_an_order_may_ask_for_checkpoints(folder, tmp_path) -> None:
    class Keeping(Listed):
        @property
        def keep(self):
            return self.step == 3

    trainer = plain(folder, tmp_path, save_strategy="steps", save_steps=100)
    train(trainer, Keeping(SOME))
    assert {each.name for each in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}


def test_an_order_is_started_with_what_the_trainer_knows(folder, tmp_path) -> None:
    from coretune.integrations.trl import attach

    rows = encoded()
    rows[4]["labels"] = [rows[4]["labels"][3]] + [-100] * (len(rows[4]["labels"]) - 1)  # at a place that none predicts
    trainer = plain(folder, tmp_path, data=dataset(rows), gradient_accumulation_steps=2, seed=3)

    class Asked:
        def start(self, learned, *, batch_rows, seed):
            self.learned, self.batch_rows, self.seed = learned, batch_rows, seed
            return Listed([[0, 1, 2, 3]])

    order = Asked()
    assert isinstance(attach(trainer, order).chooser, Chooser)
    assert np.flatnonzero(~order.learned).tolist() == [4]
    assert (order.batch_rows, order.seed) == (4, 3)
    with pytest.raises(ValueError, match="follows an order already"):
        attach(trainer, order)


def test_rows_that_cannot_be_trained_are_errors(folder, tmp_path) -> None:
    for rows, message in (([[0, 11]], "the trainer's dataset has 11 rows"), ([[0, 1, 2]], "have 1 to 2")):
        with pytest.raises(ValueError, match=message):
            train(plain(folder, tmp_path), Listed(rows))
    rows = encoded()
    rows[4]["labels"] = [-100] * len(rows[4]["labels"])
    with pytest.raises(CoretuneError, match="row 4 in step 1 is nan; it has no tokens to learn"):
        train(plain(folder, tmp_path, data=dataset(rows)), Listed([[3, 4]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": True, "packing_strategy": "wrapped"}, "set packing=False"),
        ({"padding_free": True, "max_length": None}, "set padding_free=False"),
        ({"shuffle_dataset": True}, "set shuffle_dataset=False"),
        ({"dataloader_num_workers": 2}, "set dataloader_num_workers=0"),
        ({"train_sampling_strategy": "group_by_length"}, "leave it at 'random'"),
        ({"auto_find_batch_size": True}, "set per_device_train_batch_size"),
        ({"restore_callback_states_from_checkpoint": True}, "the order restores itself"),
    ],
)
def test_settings_that_an_order_cannot_work_with_are_refused(folder, tmp_path, options, message) -> None:
    from coretune.integrations.trl import attach

    trainer = sft(folder, tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        attach(trainer, Listed(SOME))
    assert "train" not in vars(trainer)  # left as it was


def test_fused_losses_are_refused(folder, tmp_path, monkeypatch) -> None:
    from coretune.integrations.trl import attach

    trainer = plain(folder, tmp_path)
    monkeypatch.setattr(trainer.args, "use_liger_kernel", True)
    with pytest.raises(ValueError, match="fused_linear_cross_entropy': False"):
        attach(trainer, Listed(SOME))
    trainer = plain(folder, tmp_path)
    forward = trainer.model.forward

    @functools.wraps(forward)
    def without_logits(**inputs):
        output = forward(**inputs)
        output.logits = None  # what a loss that is fused into the model leaves
        return output

    monkeypatch.setattr(trainer.model, "forward", without_logits)
    with pytest.raises(CoretuneError, match=r"found none\. Turn off losses fused"):
        train(trainer, Listed(SOME))


def test_a_collator_that_joins_rows_is_an_error(folder, tmp_path) -> None:
    trainer = sft(folder, tmp_path)
    trainer.data_collator.padding_free = True
    with pytest.raises(CoretuneError, match="out of 2 examples"):
        train(trainer, Listed(SOME))


TWO = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from tests import test_integrations_trl as tests
folder, out = map(Path, sys.argv[1:])
trainer = tests.plain(folder, out, lora=True, ddp_backend="gloo", gradient_accumulation_steps=1)
following = tests.train(trainer, tests.lead_of(tests.ROWS))
assert trainer.args.world_size == 2
np.save(out / f"visits-{trainer.args.process_index}.npy", following.visits)
"""


@pytest.mark.slow
def test_two_processes_choose_and_learn_what_one_does(folder, tmp_path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "two.py"), str(folder), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (np.load(tmp_path / f"visits-{i}.npy") for i in range(2))
    np.testing.assert_array_equal(first, second)
    one = plain(folder, tmp_path, lora=True, gradient_accumulation_steps=2)
    alone = train(one, lead_of(ROWS)).visits
    assert len(np.unique(alone["row"])) > 4
    np.testing.assert_array_equal(first[["step", "row"]], alone[["step", "row"]])
    np.testing.assert_allclose(first["loss"], alone["loss"], rtol=1e-5)
