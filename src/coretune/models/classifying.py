"""Loading models that give a text a number: sequence classification with one output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coretune.errors import ModelError
from coretune.models.contents import read_json
from coretune.models.finding import find_model
from coretune.models.loading import _language_model

CLASSIFIES = "ForSequenceClassification"


def load_reward_model(
    name: str | Path, *, dtype: str = "float32", device: str | None = None, remote_code: bool = False
) -> Any:
    """A sequence-classification model with one output, in evaluation mode, as `load_causal_lm` gives causal ones.

    Raises `ModelError` where it is another kind of model, has another number of outputs, or where any of its
    parameters is not in its files.
    """
    found = find_model(name)
    config = read_json(found.path / "config.json") if found.path.is_dir() else {}
    kinds = [str(each) for each in config.get("architectures") or ()]
    if not any(kind.endswith(CLASSIFIES) for kind in kinds):
        raise ModelError(
            f"model {found.name!r} is a {' or '.join(kinds) or found.kind}; one that gives a text a number is needed: "
            f"sequence classification with one output, such as a reward model (Llama{CLASSIFIES})"
        )
    outputs = len(config.get("id2label") or (0, 1))  # two, where a configuration says nothing
    if outputs != 1:
        raise ModelError(
            f"model {found.name!r} has {outputs} outputs; a model with one is needed, as reward models are"
        )
    return _language_model(found, "AutoModelForSequenceClassification", dtype, device, remote_code)
