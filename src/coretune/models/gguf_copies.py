"""GGUF files, read once: their tokenizer and their de-quantised weights are kept as an ordinary model folder."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

from coretune.errors import ModelError, need
from coretune.models.cache import made_once, models_cache
from coretune.models.contents import content_digest

log = logging.getLogger(__name__)

VERSION = 1  # raised when the copies change for the same file


def tokenizer_copy(gguf: Path) -> Path:
    """The folder with a GGUF file's tokenizer and configuration. Raises `ModelError` where it cannot be read."""

    def make(folder: Path) -> None:
        transformers = _ready(gguf, "tokenizer")
        tokenizer = _read(gguf, transformers.AutoTokenizer)
        config = _read(gguf, transformers.AutoConfig)
        tokenizer.model_max_length = config.max_position_embeddings
        tokenizer.save_pretrained(folder)
        _plain(config).save_pretrained(folder)

    return made_once(_folder(gguf) / "tokenizer", make)


def weights_copy(gguf: Path) -> Path:
    """The folder with a GGUF file's model in float32, as exact as the file. Raises `ModelError` where unreadable."""

    def make(folder: Path) -> None:
        transformers = _ready(gguf, "weights")
        model = _read(gguf, transformers.AutoModelForCausalLM, dtype=need("torch", "models").float32)
        _plain(model.config)
        model.hf_quantizer = None  # its weights are numbers again, which alone may be saved
        model.save_pretrained(folder)

    return made_once(_folder(gguf) / "weights", make)


def _folder(gguf: Path) -> Path:
    return models_cache() / "copies" / f"{content_digest(gguf)}-{VERSION}"


def _ready(gguf: Path, part: str) -> Any:
    need("gguf", "models")
    log.info("reading the %s of %s for the first time; later it takes a moment", part, gguf.name)
    return need("transformers", "models")


def _read(gguf: Path, auto: Any, **options: Any) -> Any:
    """What one of the auto classes of transformers makes of a GGUF file. Raises `ModelError` where it cannot."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
            return auto.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True, **options)
    except Exception as error:  # a torn or unknown file fails anywhere in the reader, with errors of all kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"{gguf} cannot be read as a GGUF model ({reason}); if the file is whole, its architecture or quantisation "
            "is not known to transformers: give the model's folder or hub id instead"
        ) from error


def _plain(config: Any) -> Any:
    """The configuration without the note that the weights are quantised, which in the copy they are not."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config
