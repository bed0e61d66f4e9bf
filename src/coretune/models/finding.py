"""A model's name -> where it lies and what it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from coretune.errors import ModelError, nearest
from coretune.models.contents import LAYOUT, Kind, content_digest, kind_of, read_json
from coretune.models.gguf_copies import tokenizer_copy
from coretune.models.hub import has_weights, hub_snapshot
from coretune.models.packages import EMBEDDED, embedded_path

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?")
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx", "seq_length")
NO_LIMIT = 1 << 24  # tokenizers without a limit give a number far above this


@dataclass(frozen=True)
class Found:
    """A model as it lies here: `digest` stands for all its content, `kind` says what it can do."""

    name: str
    path: Path
    digest: str
    kind: Kind


def find_model(name: str | Path) -> Found:
    """Where the model of this name lies; a hub model is downloaded where it is not here. No weights are loaded.

    Raises `ModelError`, saying what was looked for and how to get it, where there is no such model.
    """
    path = locate(name)
    kind = kind_of(path)
    if path.is_dir() and not has_weights(path):
        raise ModelError(f"model {str(name)!r}: {path} holds no weights; {LAYOUT}")
    return Found(str(name), path, content_digest(path), kind)


def locate(name: str | Path, *, weights: bool = True) -> Path:
    """The folder or GGUF file of a model; without `weights`, its tokenizer is enough. Raises `ModelError`."""
    text = str(name)
    if text in EMBEDDED:
        return embedded_path(text)
    path = Path(text).expanduser()
    if path.exists():
        return path
    if path.suffix.lower() == ".gguf" or text.startswith((".", "~", "/")) or not HUB_ID.fullmatch(text):
        raise ModelError(f"model {text!r}: there is no such file or folder{_instead(text)}")
    try:
        return hub_snapshot(text, weights=weights)
    except ModelError as error:
        raise ModelError(
            f"model {text!r} is no file or folder here and could not be had from the hub ({error})"
            f"{_instead(text)} Without a network, download it elsewhere "
            f"(hf download {text.partition('@')[0]} --local-dir FOLDER) and give the folder: {LAYOUT}"
        ) from error


def _instead(text: str) -> str:
    return f"{nearest(text, EMBEDDED) or '.'} Models that need no hub: {', '.join(EMBEDDED)}."


def longest_input(found: Found) -> int:
    """The most tokens a model takes at once, special tokens counted, read off its folder.

    An encoder's own limit where it has one, else the smaller of the model's positions and the tokenizer's limit.
    Raises `ModelError` where nothing says it.
    """
    folder = tokenizer_copy(found.path) if found.path.is_file() else found.path
    own = [read_json(file).get("max_seq_length") for file in sorted(folder.rglob("sentence_*_config.json"))]
    limits = [limit for limit in own if isinstance(limit, int)]
    if not limits:
        config = read_json(folder / "config.json")
        told = [part.get(key) for part in (config, config.get("text_config", {})) for key in POSITIONS]
        told.append(read_json(folder / "tokenizer_config.json").get("model_max_length"))
        limits = [limit for limit in told if isinstance(limit, int) and 0 < limit < NO_LIMIT]
    if not limits:
        raise ModelError(f"model {found.name!r} does not say how many tokens it takes at once; say it with max_tokens")
    return min(limits)


def default_prompt(found: Found) -> str:
    """The words that a sentence encoder puts before every text unless told otherwise; empty where there are none."""
    said = read_json(found.path / "config_sentence_transformers.json") if found.path.is_dir() else {}
    return (said.get("prompts") or {}).get(said.get("default_prompt_name")) or ""
