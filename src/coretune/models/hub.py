"""Models of the hub, through `huggingface_hub` and its own cache; what is cached is used without asking the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coretune.errors import ModelError, need
from coretune.models.contents import READ, read_json

TIMEOUT_SECONDS = 5.0  # for the hub's first answer
WEIGHTS = {".safetensors": "*.safetensors", ".bin": "*.bin"}  # the first kind that a model has is taken
ASIDE = ["onnx/*", "openvino/*", "checkpoint-*/*", "original/*"]


def hub_snapshot(name: str, *, weights: bool = True) -> Path:
    """The folder of a hub model `owner/name[@revision]`, downloaded where it is not cached; `weights` with its weights.

    Raises `ModelError`, with the hub's own reason in one line, where it cannot be had.
    """
    hub: Any = need("huggingface_hub", "models")
    repo, _, revision = name.partition("@")
    patterns = [f"*{suffix}" for suffix in sorted(READ - set(WEIGHTS))]
    cached = _cached(hub, repo, revision or None, weights)
    if cached is not None:
        return cached
    try:
        info = hub.HfApi().model_info(repo, revision=revision or None, timeout=TIMEOUT_SECONDS)
        files = [each.rfilename for each in info.siblings or ()]
        kinds = [glob for suffix, glob in WEIGHTS.items() if any(file.endswith(suffix) for file in files)]
        wanted = [*patterns, *(kinds[:1] if weights else [])]
        folder = hub.snapshot_download(
            repo, revision=info.sha, allow_patterns=wanted, ignore_patterns=ASIDE, etag_timeout=TIMEOUT_SECONDS
        )
    except Exception as error:  # the errors of the hub's client and of its HTTP library share no base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(reason) from error
    return Path(folder)


def _cached(hub: Any, repo: str, revision: str | None, weights: bool) -> Path | None:
    """The folder of a model in the hub's cache, if all that is wanted is there."""
    file = hub.try_to_load_from_cache(repo, "config.json", revision=revision)
    if not isinstance(file, str):
        return None
    folder = Path(file).parent
    return folder if not weights or has_weights(folder) else None


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights, all of their files where an index names several."""
    for index in (*folder.rglob("*.safetensors.index.json"), *folder.rglob("*.bin.index.json")):
        shards = set(read_json(index).get("weight_map", {}).values())
        return all((index.parent / shard).exists() for shard in shards)
    return any(next(folder.rglob(glob), None) is not None for glob in WEIGHTS.values())
