"""What a run is asked, as a digest that tells it from others, and the scores that come in files of their own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coretune.evaluation.items import Items
from coretune.features.column import scores_file
from coretune.knowledge import Knowledge
from coretune.pool import Pool

if TYPE_CHECKING:
    from coretune.runs import Request
    from coretune.runs_rounds import HeldOut

log = logging.getLogger(__name__)


def with_scores(pool: Pool, files: tuple[str, ...]) -> tuple[Pool, str]:
    """The pool with the scores of these files as columns, and a digest of them; says how many rows have none."""
    digest = hashlib.blake2b(digest_size=16)
    for each in files:
        path, _, name = each.rpartition(":") if not Path(each).exists() and ":" in each else (each, "", "")
        scores = scores_file(pool, path, score=name or None)
        if scores.rows_without or scores.ids_unknown:
            log.warning(
                "%s: %d rows of the pool have no %s, %d of its ids are not in the pool",
                *(path, scores.rows_without, scores.name, scores.ids_unknown),
            )
        pool = pool.joined(scores.name, scores.values)
        digest.update(scores.name.encode() + scores.values.tobytes())
    return pool, digest.hexdigest()


def identity_of(
    request: Request,
    pool: Pool,
    files: Mapping[str, Pool | Knowledge],
    score_digest: str,
    sets: Sequence[Items] = (),
    held_out: HeldOut | None = None,
) -> str:
    """A digest of what was asked, with files by content: equal for the same run, whatever the files are called."""
    asked = dataclasses.asdict(request) | {"inputs": None, "fingerprint": pool.fingerprint, "scores": score_digest}
    del asked["digests"], asked["decontaminate"], asked["held_out"]
    if sets:  # runs from before there was such an option stay what they are
        asked["decontaminate"] = [each.fingerprint for each in sets]
    if held_out is not None:
        asked["held_out"] = held_out.items.fingerprint
    asked["options"] = {**asked["options"], **{name: each.fingerprint for name, each in files.items()}}
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
