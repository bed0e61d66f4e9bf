"""What a tuning needs before anything is loaded: the layers it names, and memory, with what would fit instead.

The model is built from its configuration without weights, so that its layers and sizes are known. The estimate is
rough (within a third, tried on small models): it is there to refuse what cannot work, not to fill memory to the brim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coretune.errors import ModelError, nearest, need
from coretune.models import find_model
from coretune.models.gguf_copies import tokenizer_copy
from coretune.tuning.spec import ALL_LINEAR, Tuning
from coretune.tuning.tokens import Tokens

GIB = 1 << 30
SIZES = {"float32": 4, "bfloat16": 2}
FEWEST_TOKENS = 256  # smaller batches are not advised


@dataclass(frozen=True)
class Outline:
    """A model's sizes: all `parameters`; each linear layer's name with its inputs and outputs, the head's apart."""

    parameters: int
    linear: dict[str, tuple[int, int]]
    layers: int
    width: int
    vocabulary: int


@dataclass(frozen=True)
class Need:
    """Bytes: the weights, the tuned parameters' gradients and Adam state, and what a batch leaves for its backward."""

    weights: int
    state: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.state + self.activations


def outline(model: str) -> Outline:
    """The sizes of a model. Raises `ModelError` where there is none, or where it is no causal language model."""
    torch, transformers = need("torch", "models"), need("transformers", "models")
    found = find_model(model)
    if found.kind != "causal-lm":
        raise ModelError(f"model {found.name!r} is a {found.kind}; a causal language model is needed, as smollm2-135m")
    folder = tokenizer_copy(found.path) if found.path.is_file() else found.path
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            made = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # a configuration of a newer library fails anywhere
        raise ModelError(f"model {model!r}: its config.json cannot be understood ({error})") from error
    head = made.get_output_embeddings()
    linear = {name: size for name, part in made.named_modules() if part is not head and (size := _size(part))}
    text = config.get_text_config()
    return Outline(made.num_parameters(), linear, text.num_hidden_layers, text.hidden_size, text.vocab_size)


def _size(part: Any) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer (GPT-2's are called Conv1D); None for another module."""
    if isinstance(part, need("torch", "models").nn.Linear):
        return int(part.in_features), int(part.out_features)
    if type(part).__name__ == "Conv1D":
        return int(part.weight.shape[0]), int(part.weight.shape[1])
    return None


def targeted(spec: Tuning, shape: Outline) -> dict[str, tuple[int, int]]:
    """The linear layers that get LoRA factors. Raises `ValueError`, naming those there are, for names of none."""
    if spec.targets == (ALL_LINEAR,):
        return shape.linear
    kinds = sorted({name.rpartition(".")[2] for name in shape.linear})
    for each in spec.targets:
        if not any(_ends(name, each) for name in shape.linear):
            raise ValueError(
                f"{spec.model} has no linear layer {each!r}{nearest(each, kinds)} It has: {', '.join(kinds)}; "
                f"or give {ALL_LINEAR}"
            )
    return {name: size for name, size in shape.linear.items() if any(_ends(name, each) for each in spec.targets)}


def needed(spec: Tuning, shape: Outline, longest: int, answer_share: float) -> Need:
    """About what a resolved tuning needs, for rows of up to `longest` tokens."""
    size = SIZES[spec.precision or "float32"]
    factors = {} if spec.rank is None else targeted(spec, shape)
    tuned = shape.parameters if spec.rank is None else sum(spec.rank * (a + b) for a, b in factors.values())
    copies = size if spec.rank is None and size < 4 else 0  # autocast's
    weights = shape.parameters * (4 + copies) if spec.rank is None else shape.parameters * size + 4 * tuned
    passed = sum((a + b) * size for a, b in shape.linear.values()) + 16 * shape.width * shape.layers
    passed += sum(a * (4 + size + 1) for a, _ in factors.values())  # LoRA's input in float32, dropped in part
    if spec.gradient_checkpointing:
        passed = shape.layers * shape.width * size + passed // max(1, shape.layers)
    head = int(shape.vocabulary * answer_share * (size + 12))
    tokens = max(spec.batch_tokens or 1, longest)
    return Need(weights, 12 * tuned, tokens * (passed + head))


def refuse_what_cannot_work(spec: Tuning, tokens: Tokens, device: str) -> None:
    """Raise `ValueError` for layers that the model lacks, `ModelError` where memory will not do, with what would."""
    shape = outline(spec.model)
    if spec.rank is not None:
        targeted(spec, shape)
    longest, share = int(tokens.lengths.max()), float(tokens.answer_lengths.sum() / tokens.lengths.sum())
    asked, room = needed(spec, shape, longest, share), free_bytes(device)
    if room is None or asked.total <= room:
        return
    fitting: list[str] = []
    for words, other in _others(spec):
        if (less := needed(other, shape, longest, share).total) <= room and len(fitting) < 3:
            fitting.append(f"{words} ({less / GIB:.1f} GiB)")
    advice = f"it would fit with {'; or '.join(fitting)}" if fitting else "a smaller model, or more memory, is needed"
    raise ModelError(
        f"tuning {spec.model} so needs about {asked.total / GIB:.1f} GiB (weights {asked.weights / GIB:.1f}, gradients "
        f"and Adam's state {asked.state / GIB:.1f}, a batch {asked.activations / GIB:.1f}), and {room / GIB:.1f} GiB "
        f"are free on this {'GPU' if device == 'cuda' else 'machine'}; {advice}"
    )


def _others(spec: Tuning) -> Iterator[tuple[str, Tuning]]:
    """Tunings that need less, the nearest to what was asked first."""
    checkpointed = replace(spec, gradient_checkpointing=True)
    yield "gradient_checkpointing", checkpointed
    tokens = spec.batch_tokens or FEWEST_TOKENS
    while tokens > FEWEST_TOKENS:
        tokens = max(FEWEST_TOKENS, tokens // 2)
        yield f"batch_tokens {tokens}", replace(spec, batch_tokens=tokens)
        yield f"batch_tokens {tokens} and gradient_checkpointing", replace(checkpointed, batch_tokens=tokens)
    if spec.precision == "float32":
        yield "precision bfloat16", replace(spec, precision="bfloat16")
    if spec.rank is None:
        yield "LoRA, as rank 16", replace(spec, rank=16)
        yield "LoRA, as rank 16, and gradient_checkpointing", replace(checkpointed, rank=16)
    elif spec.rank > 8:
        yield "rank 8", replace(spec, rank=8)


def free_bytes(device: str) -> int | None:
    """The memory that a device still has, for this process; None where nobody says."""
    if device == "cuda":
        free: int = need("torch", "models").cuda.mem_get_info()[0]
        return free
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return min([free, *_left_in_group()])


def _left_in_group() -> list[int]:
    """What a container's limit leaves, where there is one."""
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        return [int(most) - used] if most.isdigit() else []
    except (OSError, ValueError):
        return []


def _ends(name: str, target: str) -> bool:
    """Whether a layer has this name, or ends in it, as PEFT understands targets."""
    return name == target or name.endswith(f".{target}")
