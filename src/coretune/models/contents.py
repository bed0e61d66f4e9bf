"""What lies in a model folder or file: its kind, and its content digest."""

from __future__ import annotations

import contextlib
import json
import logging
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from coretune.errors import ModelError
from coretune.models.cache import models_cache, new_file

log = logging.getLogger(__name__)

Kind = Literal["causal-lm", "encoder", "sentence-encoder", "tokenizer"]
CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
READ = {".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken", ".py"}  # what loading a folder may read
OLD_WEIGHTS = {".bin", ".pt"}  # read where there are no safetensors
NOT_READ = {"trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "data_config.json"}
LAYOUT = "a model folder holds config.json, *.safetensors, tokenizer.json and tokenizer_config.json"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; empty where there is no such file. Raises `ModelError` where it is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); get the model's folder again") from error
    return found if isinstance(found, dict) else {}


def kind_of(path: Path) -> Kind:
    """What a folder or file holds. Raises `ModelError`, saying what was found, where that is no model."""
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return "causal-lm"
        raise ModelError(f"{path} is a file, but no GGUF file; give a *.gguf file, or a folder: {LAYOUT}")
    if (path / "modules.json").exists():
        return "sentence-encoder"
    config = read_json(path / "config.json")
    if not config:
        if (path / "tokenizer.json").exists() or (path / "tokenizer_config.json").exists():
            return "tokenizer"
        raise ModelError(_no_model(path))
    causal = any(str(name).endswith(CAUSAL) for name in config.get("architectures") or ())
    return "causal-lm" if causal and not config.get("is_encoder_decoder") else "encoder"


def _no_model(path: Path) -> str:
    names = sorted(each.name for each in path.iterdir())
    if "adapter_config.json" in names:
        base = read_json(path / "adapter_config.json").get("base_model_name_or_path")
        return f"{path} holds a LoRA adapter of {base}, not a model; merge it into its model and give that folder"
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        return f"{path} holds no config.json but {', '.join(ggufs)}; give the file itself: {path / ggufs[0]}"
    return f"{path} holds no model but {', '.join(names[:8]) or 'nothing'}; {LAYOUT}"


def content_digest(path: Path) -> str:
    """32 hexadecimal digits that stand for a GGUF file, or for all files of a folder that loading it may read."""
    if path.is_file():
        return file_digest(path)
    suffixes = READ if any(path.rglob("*.safetensors")) else READ | OLD_WEIGHTS
    files = sorted(
        each
        for each in path.rglob("*")
        if each.suffix in suffixes
        and each.name not in NOT_READ
        and not _aside(each.relative_to(path))
        and each.is_file()
    )
    digest = blake2b(digest_size=16)
    for each in files:
        digest.update(f"{each.relative_to(path).as_posix()}\n{file_digest(each)}\n".encode())
    return digest.hexdigest()


def _aside(inside: Path) -> bool:
    """Whether a file lies where loading does not look: hidden folders, exports, training checkpoints."""
    return any(part.startswith((".", "checkpoint-")) or part in ("onnx", "openvino") for part in inside.parts[:-1])


def file_digest(path: Path) -> str:
    """The blake2b digest of a file; remembered by its path, size and time where that costs more than a moment."""
    real = path.resolve()
    stat = real.stat()
    if stat.st_size < 1 << 20:
        return blake2b(real.read_bytes(), digest_size=16).hexdigest()
    known_as = blake2b(f"{real}\n{stat.st_size}\n{stat.st_mtime_ns}".encode(), digest_size=16).hexdigest()
    known = models_cache() / "digests" / known_as
    with contextlib.suppress(OSError):
        if len(said := known.read_text(encoding="ascii")) == 32:
            return said
    digest = blake2b(digest_size=16)
    with real.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    try:
        with new_file(known) as note:
            note.write(digest.hexdigest().encode("ascii"))
    except ModelError as error:
        log.debug("the digest of %s is not remembered: %s", real, error)
    return digest.hexdigest()
