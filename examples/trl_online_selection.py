"""Let LEAD's order choose what an ordinary SFTTrainer learns next, while it trains.

    python examples/trl_online_selection.py [--model smollm2-135m] [--rows 120] [--budget 40] [--out DIR]

Before the training: two passes over 120 short records, for their losses and how hard their answers are. In it: no pass
beside those that train. Prints what each round chose, of which difficulty, and why. Four minutes of processor time;
needs [models] and trl.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from typing import Any

import numpy as np
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from coretune import Lab, Pool, read_pool
from coretune.chat import chat_tokenizer
from coretune.data import DEMO_POOL
from coretune.engines import engine_for
from coretune.features.answer_loss import AnswerLoss
from coretune.integrations.trl import Following, attach
from coretune.models import best_device, best_precision, load_causal_lm
from coretune.orders.lead import Lead
from coretune.scores.surprise import ifd_loss_ratio

CLUSTERS = 4


def short_records(rows: int, *, most_characters: int = 300) -> Pool:
    """The first short records of the shipped pool."""
    pool = read_pool(DEMO_POOL)
    lengths = np.array([sum(len(message.content) for message in example.messages) for example in pool])
    return pool.subset(np.flatnonzero(lengths <= most_characters)[:rows])


def lead_order(pool: Pool, lab: Lab, model: str, budget: int) -> Lead:
    """LEAD's order: utilities from the losses of the untuned model, clusters by how much an instruction helps."""
    after = lab.features(AnswerLoss(model), pool).array()
    alone = lab.features(AnswerLoss(model, before="nothing"), pool).array()
    difficulty = ifd_loss_ratio(after, alone)
    cell = np.digitize(difficulty, np.quantile(difficulty, np.arange(1, CLUSTERS) / CLUSTERS)).astype(np.int32)
    kinds, task = np.unique(pool.column("category"), return_inverse=True)
    print(f"{len(pool)} records of {len(kinds)} tasks; mean loss {after.mean():.2f}; to choose: {budget}")
    return Lead(after.astype(np.float32), cell, task.astype(np.int32), budget=budget, share=0.2)


def trainer_for(pool: Pool, model: str, out: str) -> SFTTrainer:
    """An SFTTrainer like any other: LoRA, loss on the answers alone."""
    talks = [[{"role": each.role, "content": each.content} for each in example.messages] for example in pool]
    device = best_device()
    return SFTTrainer(
        load_causal_lm(model, device=device),
        SFTConfig(
            output_dir=out,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            max_steps=100,  # the order ends before
            learning_rate=2e-4,
            max_length=512,
            bf16=best_precision(device) == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=device == "cpu",
            dataloader_pin_memory=device != "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": talk[:-1], "completion": talk[-1:]} for talk in talks]),
        processing_class=chat_tokenizer(model),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def tell(pool: Pool, following: Following) -> None:
    """Print the rounds: which cluster was drawn, what its rows are, and what the training made of them."""
    chooser: Any = following.chooser
    start = 0
    for number, rows in enumerate(chooser.visited["row"]):
        seen = following.visits[start : start + len(rows)]
        start += len(rows)
        chances = " ".join(f"{chance:.2f}" for chance in chooser.rounds["probabilities"][number])
        print(
            f"round {number + 1}: cluster {chooser.rounds['cell'][number]} (chances were {chances}), {len(rows)} rows, "
            f"{len(np.unique(following.visits['row'][:start]))} different ones so far, "
            f"mean loss {seen['loss'].mean():.2f}, reward {chooser.rounds['reward'][number]:+.2f}"
        )
        hardest = seen[np.argmax(seen["loss"])]
        print(f"    highest loss, {hardest['loss']:.2f}: {pool[int(hardest['row'])].messages[0].content[:90]!r}")


def main(words: list[str] | None = None) -> Following:
    """Measure, train, tell."""
    parser = argparse.ArgumentParser(description="LEAD's order inside an SFTTrainer")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--budget", type=int, default=40)
    parser.add_argument("--out")
    asked = parser.parse_args(words)
    pool = short_records(asked.rows)
    with engine_for() as engine:
        order = lead_order(pool, Lab(map=engine), asked.model, asked.budget)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what TRL and PEFT ask of transformers
        trainer = trainer_for(pool, asked.model, asked.out or scratch)
        following = attach(trainer, order)
        trainer.train()
        if asked.out:
            trainer.save_model()
    tell(pool, following)
    return following


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
