"""Data sets of the hub, by `owner/name[/config][:split]`, through the `datasets` package and its cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from coretune.errors import PoolError, need
from coretune.formats import Recogniser
from coretune.readers.advice import check_columns
from coretune.readers.arrow_records import records_of
from coretune.readers.open_inputs import Record

ROWS = 1024  # taken at a time


def read_dataset(dataset: str, recogniser: Recogniser, converted: Counter[str]) -> Iterator[Record]:
    """The rows of one split of a data set, numbered from 1.

    Raises `PoolError` where it cannot be had, has several splits or configurations and none is named, or has columns
    that make no known format; `MissingExtra` where `datasets` is not installed.
    """
    address, _, split = dataset.partition(":")
    owner, name, *config = address.split("/")
    rows = load_split(f"{owner}/{name}", config[0] if config else None, split or None)
    check_columns(recogniser, rows.column_names, dataset)
    before = 0
    for table in rows.with_format("arrow").iter(batch_size=ROWS):
        for batch in table.to_batches():
            yield from records_of(batch, before, converted)
            before += batch.num_rows


def load_split(address: str, config: str | None, split: str | None) -> Any:
    """One split as a `datasets.Dataset`: the one named, or the only one there is. `address` may be a local folder."""
    datasets = need("datasets", "hub")
    shown = f"{address}/{config}" if config else address
    bars = datasets.is_progress_bar_enabled()
    try:
        datasets.disable_progress_bars()
        if split is None:
            splits = list(datasets.get_dataset_split_names(address, config))
            if len(splits) != 1:
                raise PoolError(f"{shown} has the splits {', '.join(splits)}; name one: {shown}:{splits[0]}")
            split = splits[0]
        return datasets.load_dataset(address, config, split=split)
    except PoolError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise PoolError(
            f"{shown!r} is no file here, and could not be had from the hub: {_first_line(error)}. Check the name "
            "(owner/name, owner/name/config, owner/name:split), the network, and that you may read it"
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines else type(error).__name__
