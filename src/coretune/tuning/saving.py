"""Checkpoints that stay: an adapter in PEFT's own format or a whole model, and the optimizer's state by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from coretune.chat import chat_tokenizer
from coretune.errors import need
from coretune.models.contents import file_digest
from coretune.store.digests import digest
from coretune.store.folders import sync
from coretune.tuning.spec import Tuning

ADAPTER = "default"  # PEFT's name for the one adapter of a model; it is left out of the names in its files
CONFIG, WEIGHTS, OPTIMIZER = "adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors"


def write_checkpoint(path: Path, spec: Tuning, model: Any, optimizer: Any, step: int) -> None:
    """Write a checkpoint, which appears complete or not at all; one that is there already is replaced."""
    draft = path.with_name(f".{path.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if spec.rank is None:
        model.save_pretrained(draft)
        chat_tokenizer(spec.model, spec.template).save_pretrained(draft)  # so that the folder is a whole model
    else:
        model.save_pretrained(draft, save_embedding_layers=False)  # looking for resized ones would ask the hub
        (draft / "README.md").unlink(missing_ok=True)
        _mend_config(draft / CONFIG, spec.model)
    _write_optimizer(draft / OPTIMIZER, model, optimizer, step)
    for each in (*draft.rglob("*"), draft):
        sync(each)
    shutil.rmtree(path, ignore_errors=True)
    draft.rename(path)
    sync(path.parent)


def _mend_config(path: Path, model: str) -> None:
    """Name the model as it was asked for, not where a copy of it lies, and put lists that were sets in order."""
    said = json.loads(path.read_text(encoding="utf-8"))
    name, _, revision = model.partition("@") if not Path(model).exists() else (str(Path(model).absolute()), "", "")
    said |= {"base_model_name_or_path": name, "revision": revision or None}
    for key in ("target_modules", "modules_to_save"):
        if isinstance(said.get(key), list):
            said[key] = sorted(said[key])
    path.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_optimizer(path: Path, model: Any, optimizer: Any, step: int) -> None:
    """The moments of every tuned parameter, named as in the file of weights."""
    tensors = {}
    groups = optimizer.param_groups
    for name, parameter in model.named_parameters():
        said = ".".join(part for part in name.split(".") if part != ADAPTER)
        for moment in ("exp_avg", "exp_avg_sq") if parameter in optimizer.state else ():
            tensors[f"{moment}.{said}"] = optimizer.state[parameter][moment].detach().float().cpu().contiguous()
    (beta1, beta2), eps = groups[0]["betas"], groups[0]["eps"]
    numbers = {"step": step, "beta1": beta1, "beta2": beta2, "eps": eps}
    need("safetensors.torch", "models").save_file(tensors, path, {name: repr(each) for name, each in numbers.items()})
    _in_order(path)


def _in_order(path: Path) -> None:
    """Put the header of a safetensors file in order, in place, so that the same content is the same bytes."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def checkpoint_digest(path: Path) -> str:
    """What stands for a checkpoint's content: its tensors, and an adapter's scale; not what its model is called."""
    said: dict[str, Any] = {each.name: file_digest(each) for each in sorted(path.glob("*.safetensors"))}
    if (path / CONFIG).is_file():
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        said |= {key: config[key] for key in ("r", "lora_alpha")}
    return digest(said)
