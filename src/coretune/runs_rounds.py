"""The rounds of a run: who writes them, and the loss of each round's model on answers that it was not tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coretune.errors import PoolError
from coretune.evaluation.heldout_loss import HeldoutLoss
from coretune.evaluation.items import Items, read_items
from coretune.evaluation.subject import Subject
from coretune.round_folder import RoundsWriter

if TYPE_CHECKING:
    from coretune.lab import Lab
    from coretune.methods import Method
    from coretune.runs import Request
    from coretune.tuning import Tuned


@dataclass(frozen=True)
class HeldOut:
    """A held-out file, and the lab that measures models on it; `template` is Jinja text in place of the model's own."""

    file: str
    items: Items
    lab: Lab
    template: str | None = None

    @classmethod
    def from_file(cls, file: str, lab: Lab, template: str | None = None) -> HeldOut:
        """Read an evaluation file or a pool. Raises `PoolError` where none of its items has an answer."""
        items = read_items(file)
        if not any(item.answer for item in items):
            raise PoolError(f"held-out loss is asked on {file}, but none of its {len(items)} items has an answer")
        return cls(file, items, lab, template)

    def read(self, tuned: Tuned) -> dict[str, Any]:
        """The readings of a tuned model."""
        return self._of(Subject.of(tuned, self.lab, self.template))

    def read_untuned(self, tuned: Tuned) -> dict[str, Any]:
        """The readings of the model that was tuned, before that."""
        return self._of(Subject(tuned.model, self.lab, None, self.template))

    def _of(self, subject: Subject) -> dict[str, Any]:
        found = HeldoutLoss(self.items).read(subject)
        return {
            "heldout_loss": {
                "file": Path(self.file).name,
                "per_token": found.figures["loss_per_token"],
                "per_item": found.value,
                "stderr": found.stderr,
                "items": len(found),
                "counts": {name: count for name, count in found.counts.items() if count},
            }
        }


def held_out_of(request: Request, method: Method, lab: Lab) -> HeldOut | None:
    """The held-out file, if one is asked, read by the template that the method's models are tuned with."""
    if request.held_out is None:
        return None
    return HeldOut.from_file(request.held_out, lab, getattr(method, "template", None) or request.template)


def rounds_writer(request: Request, out: Path, identity: str, held_out: HeldOut | None) -> RoundsWriter:
    """What writes the rounds of a run as they happen."""
    head = {
        "identity": identity,
        "method": request.method,
        "budget": request.budget,
        "seed": request.seed,
        "held_out": request.held_out,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if held_out is None:
        return RoundsWriter(out, head)
    return RoundsWriter(out, head, held_out.read, held_out.read_untuned)
