"""Ragged values and texts: measured, stored, joined and read like arrays. See also the laws over features."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from coretune.errors import CoretuneError, Unmeasurable
from coretune.features import Measured, Ragged, Texts
from coretune.lab import Feature, Lab, release
from coretune.pool import Example, Pool
from coretune.store import folders
from coretune.store.arrays import scan, write_array
from coretune.store.digests import address, digest, words
from coretune.store.joining import join
from coretune.store.ragged import finite_rows, gather, spans
from tests.tiny_features import Echo, Hashed, Letters, Spread, echo, noted, spread, tiny_pool


@pytest.fixture(autouse=True)
def _nothing_loaded() -> Iterator[None]:
    release()
    yield
    release()


def lists(ragged: Ragged) -> list[list[float]]:
    """Ragged rows as lists."""
    return [row.tolist() for row in ragged]


def spreads(examples: Pool | Sequence[Example]) -> list[list[float]]:
    """What `Spread` gives for these rows."""
    return [spread(example).tolist() for example in examples]


# The types


def test_ragged_rows_are_where_the_offsets_say() -> None:
    rows = Ragged.of([[1, 2], [], np.array([3.0])])
    assert (rows.values.tolist(), rows.offsets.tolist(), rows.values.dtype) == ([1, 2, 3], [0, 2, 2, 3], np.float32)
    assert (len(rows), lists(rows), rows[-1].tolist(), rows.nbytes) == (3, [[1, 2], [], [3]], [3], 3 * 4 + 4 * 8)
    with pytest.raises(IndexError):
        rows[3]
    assert len(Ragged.of([], np.int32)) == 0


SAID = ["a text", "", None, "é 👩‍🚀 没有\n", "\0", "ends in nothing\0\0", "half \udc80", None]


def test_texts_come_back_as_they_were() -> None:
    texts = Texts.of(SAID)
    assert list(texts) == SAID
    assert (texts[-2], texts[-1], len(texts)) == (SAID[-2], None, 8)
    assert texts.utf8.offsets[:5].tolist() == [0, 6, 6, 6, 6 + len((SAID[3] or "").encode())]
    assert list(Texts.of([])) == []


# Reading and writing


def random_rows(rng: np.random.Generator, count: int) -> Ragged:
    """So many rows of none to three entries."""
    return Ragged.of([rng.random(rng.integers(0, 4)) for _ in range(count)])


def test_gathered_rows_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        held = [random_rows(rng, 20) for _ in range(3)]
        runs = [np.arange(low, low + 6) for low in rng.integers(0, 15, 5)]  # neighbours, and jumps between them
        place, which = np.concatenate(runs), np.repeat(rng.integers(0, 3, 5), 6)
        starts, ends = (
            np.array([held[number].offsets[row + more] for number, row in zip(which, place, strict=True)])
            for more in (0, 1)
        )
        found = Ragged(*gather([each.values for each in held], which, starts, ends, np.dtype(np.float32)))
        assert lists(found) == [held[number][row].tolist() for number, row in zip(which, place, strict=True)]


def test_rows_that_follow_each_other_are_one_piece() -> None:
    starts, ends, one = np.array([0, 2, 2, 7, 0]), np.array([2, 2, 5, 9, 2]), np.zeros(5, dtype=int)
    assert list(spans(one, starts, ends)) == [(0, 0, 5), (0, 7, 9), (0, 0, 2)]
    assert list(spans(np.array([0, 0, 1, 1, 1]), starts, ends)) == [(0, 0, 2), (1, 2, 5), (1, 7, 9), (1, 0, 2)]
    assert list(spans(one[:0], starts[:0], ends[:0])) == []


def test_finite_rows_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = random_rows(rng, 20)
        rows.values[rng.random(len(rows.values)) < 0.2] = rng.choice([np.nan, np.inf])
        assert finite_rows(rows.values, rows.offsets).tolist() == [bool(np.isfinite(row).all()) for row in rows]


def keys_of(*numbers: int) -> np.ndarray:
    """A key a number."""
    return np.array([[7, number] for number in numbers], dtype=np.uint64)


def put(place: Path, label: str, numbers: range, dtype: Any = np.float32) -> Path:
    """Store, for each number k, k % 4 times k."""
    rows = Ragged.of([[number] * (number % 4) for number in numbers], dtype)
    return write_array(place, label, keys_of(*numbers), rows.values, {}, offsets=rows.offsets)


def test_joined_rows_stand_once_in_the_order_of_their_labels(tmp_path: Path) -> None:
    for label, numbers in (("1-0", range(0, 5)), ("1-2", range(8, 12)), ("1-1", range(3, 9))):
        put(tmp_path, label, numbers)
    join(tmp_path, small_rows=6)
    (array,) = scan(tmp_path)
    assert array.keys[:, 1].tolist() == list(range(12))
    assert lists(Ragged(array.data(), array.offsets())) == [[number] * (number % 4) for number in range(12)]
    done = json.loads((array.path / "done.json").read_text())
    assert (done["ragged"], sorted(done["files"])) == (True, ["data.npy", "offsets.npy", "rows.npy"])


def test_joining_copies_nothing_into_memory(tmp_path: Path) -> None:
    many = np.random.default_rng(0).random(1 << 20).astype(np.float32)  # 4 MB in 8 rows
    for number in range(4):
        offsets = np.arange(9) * (len(many) // 8)
        write_array(tmp_path, str(number), keys_of(*range(7 * number, 7 * number + 8)), many, {}, offsets=offsets)
    tracemalloc.start()
    join(tmp_path, small_rows=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (array,) = scan(tmp_path)
    assert len(array) == 29  # three rows stand in two of them
    assert array.data()[-(7 << 17) :].tolist() == many[1 << 17 :].tolist()
    assert peak < 1 << 20


@pytest.mark.parametrize("other", ["dense", "wider"])
def test_other_forms_are_not_joined(tmp_path: Path, other: str) -> None:
    put(tmp_path, "a", range(3))
    if other == "dense":
        write_array(tmp_path, "b", keys_of(9), np.zeros(1, np.float32), {})
    else:
        put(tmp_path, "b", range(7, 9), np.float64)
    with pytest.raises(ValueError, match=r"different forms.*'ragged float32 \(\)'"):
        join(tmp_path, small_rows=10)
    assert len(scan(tmp_path)) == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def point_beyond(path: Path) -> None:
    offsets = np.load(path)
    offsets[-1] += 1
    np.save(path, offsets)


@pytest.mark.parametrize("damage", [cut, scribble, point_beyond, Path.unlink])
def test_damaged_offsets_are_said_and_the_rows_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    pool = tiny_pool(range(40))
    Lab(tmp_path).features(Spread(), pool)
    (array,) = scan(tmp_path / "features" / address(Spread()))
    damage(array.path / "offsets.npy")
    lab = Lab(tmp_path)
    assert lists(lab.features(Spread(), pool).ragged()) == spreads(pool)
    assert lab.stages[-1].rows == 40
    assert "damaged" in caplog.text


def test_arrays_of_before_there_were_ragged_ones_are_read(tmp_path: Path) -> None:
    pool, lab = tiny_pool(range(5)), Lab(tmp_path)
    want = lab.features(Hashed(), pool).array()
    (array,) = scan(tmp_path / "features" / address(Hashed()))
    done = json.loads((array.path / "done.json").read_text())
    del done["ragged"]
    (array.path / "done.json").write_text(json.dumps(done))
    np.testing.assert_array_equal(lab.features(Hashed(), pool).array(), want)
    assert lab.stages[-1].stored == 5


# Through the lab


def test_it_is_a_dictionary_from_what_is_said_to_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive twin: a dictionary, over many asks of many pools, in every order, of both kinds."""
    monkeypatch.setattr("coretune.store.folders.sync", lambda path: None)
    rng, log = np.random.default_rng(0), tmp_path / "log"
    known: set[bytes] = set()
    for _ in range(60):
        pool = tiny_pool([f"{'any' * int(each % 3)} {each}" for each in rng.integers(0, 400, rng.integers(1, 80))])
        pool = pool.exclude(np.arange(len(pool)), "none is to be chosen")
        rows = rng.integers(0, len(pool), rng.integers(0, 40)) if rng.random() < 0.5 else None
        asked = list(pool) if rows is None else pool.examples(rows)
        lab = Lab(tmp_path)
        feature = lab.features(Spread(log=str(log)), pool, rows)
        assert lab.stages[-1].rows == len({example.key for example in asked} - known)
        known |= {example.key for example in asked}
        assert lists(feature.ragged()) == spreads(asked)
        assert feature.numbers.get("second", np.empty(0)).tolist() == [example.key[1] for example in asked]
        assert feature.marks["even"].tolist() == [example.key[0] % 2 == 0 for example in asked] if asked else True
        assert lab.features(Echo(), pool, rows).texts() == [echo(example) for example in asked]
    assert len(noted(log)) == len(known)
    assert len(scan(tmp_path / "features" / address(Spread()))) <= 6


def in_arrays(lab: Lab, spec: Any, pool: Pool, arrays: int, monkeypatch: pytest.MonkeyPatch) -> Feature:
    """The feature of a pool, read from so many stored arrays in which its rows are mixed."""
    with monkeypatch.context() as patched:
        patched.setattr("coretune.lab.join_loose", lambda place, step: None)
        patched.setattr(type(spec), "shard_rows", len(pool))
        for part in np.array_split(np.random.default_rng(0).permutation(len(pool)), arrays):
            lab.features(spec, pool, np.sort(part))
        feature = lab.features(spec, pool)
    assert len(scan(lab.store / "features" / feature.address)) == arrays
    return feature


ASKED: list[Any] = [np.array([5, 99, 0, 5]), [1, 2], slice(3, 50, 7), slice(10, 60), np.arange(100) % 3 == 0, [], [-1]]


@pytest.mark.parametrize("arrays", [1, 3])
def test_a_ragged_handle_gives_the_rows_that_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: int
) -> None:
    pool = tiny_pool(range(100))
    feature, x = in_arrays(Lab(tmp_path), Spread(), pool, arrays, monkeypatch), spreads(pool)
    assert (feature.shape, feature.ndim, feature.dtype, len(feature)) == ((100,), 1, np.float32, 100)
    assert (feature.is_ragged, feature.is_text) == (True, False)
    assert feature.nbytes == feature.ragged().nbytes == 4 * sum(map(len, x)) + 8 * 101
    for rows in ASKED:
        got = feature.ragged(rows)
        at = np.arange(100)[np.array(rows, dtype=int) if isinstance(rows, list) else rows]
        assert lists(got) == [x[row] for row in at]
        got.values[...] = 0
    whole = feature.ragged()
    assert lists(whole) == x
    whole.values[...] = 0  # a copy of one's own, mapped or not
    assert lists(feature.ragged()) == x
    assert (got.values.dtype, got.offsets.dtype) == (np.float32, np.int64)
    with pytest.raises(IndexError):
        feature.ragged([100])


@pytest.mark.parametrize("arrays", [1, 3])
def test_a_handle_of_texts_gives_the_rows_that_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: int
) -> None:
    pool = tiny_pool([f"{'my' if each % 3 else 'our'} question {each}" for each in range(100)])
    barred = pool.exclude(np.array([row for row in range(100) if row % 3]), "no text")
    feature = in_arrays(Lab(tmp_path), Echo(), barred, arrays, monkeypatch)
    x = [echo(example) for example in pool]
    assert (feature.shape, feature.is_ragged, feature.is_text, x.count(None)) == ((100,), True, True, 66)
    assert feature.texts() == x
    for rows in ASKED:
        at = np.arange(100)[np.array(rows, dtype=int) if isinstance(rows, list) else rows]
        assert feature.texts(rows) == [x[row] for row in at]


def test_values_are_read_in_their_own_way_and_others_say_which(tmp_path: Path) -> None:
    lab, pool = Lab(tmp_path), tiny_pool(range(3))
    ragged, texts, dense = lab.features(Spread(), pool), lab.features(Echo(), pool), lab.features(Letters(), pool)
    for read in (ragged.array, lambda: ragged.rows([0]), lambda: next(ragged.blocks()), lambda: np.asarray(ragged)):
        with pytest.raises(ValueError, match=r"asked for an array, but holds ragged rows: read it with `\.ragged\(\)`"):
            read()
    with pytest.raises(ValueError, match=r"asked for ragged rows, but holds texts: read it with `\.texts\(\)`"):
        texts.ragged()
    with pytest.raises(ValueError, match=r"asked for texts, but holds an array: read it with `\.array\(\)`"):
        dense.texts()
    assert "ragged float32 (3,)" in repr(ragged)


def test_nothing_asked_is_nothing_read(tmp_path: Path) -> None:
    lab, none = Lab(tmp_path), tiny_pool([])
    assert lab.features(Echo(), none).texts() == []  # nothing stored says what it would be
    assert lists(lab.features(Spread(), none).ragged()) == []
    lab.features(Spread(), tiny_pool(range(3)))
    feature = lab.features(Spread(), tiny_pool(range(3)), np.array([], dtype=int))
    assert (lists(feature.ragged()), feature.shape, feature.is_ragged, feature.nbytes) == ([], (0,), True, 8)


def test_a_pool_measured_in_one_go_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Spread, "shard_rows", 2000)
    pool = tiny_pool(range(5000))
    got = Lab(tmp_path).features(Spread(), pool).ragged()
    for array in (got.values, got.offsets):
        base: Any = array
        while getattr(base, "base", None) is not None:
            base = base.base
        assert type(base).__name__ == "mmap"
    assert lists(got) == spreads(pool)


def test_a_handle_outlives_the_joining_and_pruning_of_what_it_reads(tmp_path: Path) -> None:
    pool, lab = tiny_pool(range(300)), Lab(tmp_path)
    first, said = lab.features(Spread(), pool, np.arange(100)), lab.features(Echo(), pool, np.arange(100))
    lab.features(Spread(), pool)
    folders.remove(tmp_path / "features" / said.address)
    assert lists(first.ragged()) == spreads(pool)[:100]
    assert lists(first.ragged([7])) == spreads(pool)[7:8]
    assert said.texts() == [echo(example) for example in pool][:100]


def test_a_stage_says_what_was_written_and_marked(tmp_path: Path) -> None:
    pool = tiny_pool(["a", "any", "", "a"]).exclude(np.array([1]), "no text")
    lab = Lab(tmp_path)
    lab.features(Echo(), pool)
    stage = lab.stages[-1]
    assert (stage.rows, stage.bytes) == (3, 0 + 4 * 8)
    assert stage.counts == {"missing": 1, "copies": 1, "not finite": 1}


# What has no value


@dataclass(frozen=True)
class Given:
    """Values, marks and numbers by the number at the end of the prompt."""

    kind: str
    version: ClassVar[int] = 1

    def resolved(self) -> Given:
        return self

    def load(self) -> Any:
        def measure(examples: Sequence[Example]) -> Measured:
            said = [int(example.prompt.split()[-1]) for example in examples]
            missing = {"missing": np.array([number == 2 for number in said])}
            if self.kind == "ragged":
                rows = [[[1.0, np.nan], [], [], [2.0, np.inf]][number] for number in said]
                return Measured(Ragged.of(rows), missing)
            if self.kind == "texts":
                numbers = np.array([np.nan if number == 1 else 0 for number in said])
                return Measured(Texts.of([[None, "", "a", "b"][number] for number in said]), missing, {"p": numbers})
            return Measured(np.array([[0, np.nan, 0, 0][number] for number in said]), missing)

        return measure


@pytest.mark.parametrize(
    ("kind", "barred", "reason"),
    [
        ("ragged", [0, 2, 3], "non-finite feature given ragged"),
        ("texts", [0, 1, 2], "missing (given texts)"),
        ("dense", [1, 2], "non-finite feature given dense"),
    ],
)
def test_rows_are_without_a_value_by_one_rule(tmp_path: Path, kind: str, barred: list[int], reason: str) -> None:
    lab, pool = Lab(tmp_path), tiny_pool(range(4))
    with pytest.raises(Unmeasurable) as caught:
        lab.features(Given(kind), pool)
    assert caught.value.reason == reason
    assert set(caught.value.rows) <= set(barred)
    feature = lab.features(Given(kind), pool.exclude(np.array(barred), "no value"))
    assert lab.stages[-1].rows == 0
    assert (~feature.finite).nonzero()[0].tolist() == barred
    if kind == "texts":
        assert feature.texts() == [None, "", None, "b"]
    with pytest.raises(Unmeasurable, match=r"missing \(given"):
        lab.features(Given(kind), pool, np.array([2]))


@dataclass(frozen=True)
class Broken:
    how: str
    version: ClassVar[int] = 1

    def resolved(self) -> Broken:
        return self

    def load(self) -> Any:
        gives: dict[str, Any] = {
            "few": Ragged.of([[1.0]]),
            "fractions": Ragged(np.zeros(3), np.array([0.0, 1.0, 2.0, 3.0])),
            "short": Ragged(np.zeros(3), np.array([0, 1, 2, 2])),
            "late": Ragged(np.zeros(3), np.array([1, 1, 2, 3])),
            "back": Ragged(np.zeros(3), np.array([0, 2, 1, 3])),
            "wide": Ragged(np.zeros((3, 2)), np.array([0, 1, 2, 3])),
            "letters": Ragged(np.array(["a", "b", "c"]), np.array([0, 1, 2, 3])),
            "bytes": Texts(Ragged(np.zeros(3, np.uint8), np.array([0, 1, 2, 3])), np.zeros(3, bool)),
            "two texts": Texts.of(["a", "b"]),
            "marks": Texts(Texts.of(["a", "b", "c"]).utf8, np.zeros(2, bool)),
        }
        return lambda examples: Measured(gives[self.how])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("few", r"measured 3 examples and gave offsets int64 \(2,\), not \(4,\)"),
        ("fractions", "gave offsets float64"),
        ("short", "do not ascend from 0 to 3"),
        ("late", "do not ascend from 0 to 3"),
        ("back", "do not ascend from 0 to 3"),
        ("wide", r"ragged values of shape \(3, 2\)"),
        ("letters", "values of type <U1"),
        ("bytes", r"texts in uint8, not in bytes \(S1\)"),
        ("two texts", r"gave offsets int64 \(3,\), not \(4,\)"),
        ("marks", r"mark 'missing' of .* is bool \(2,\), not bool \(3,\)"),
    ],
)
def test_a_feature_that_gives_nonsense_is_refused(tmp_path: Path, how: str, said: str) -> None:
    with pytest.raises(CoretuneError, match=said):
        Lab(tmp_path).features(Broken(how), tiny_pool(range(3)))
    assert scan(tmp_path / "features" / address(Broken(how))) == []


# What is kept

calls: list[str] = []


def longest(rows: Ragged, texts: Texts) -> tuple[Ragged, Texts]:
    """The longest row, and the longest text."""
    calls.append("longest")
    row = max(range(len(rows)), key=lambda at: len(rows[at]))
    return Ragged.of([rows[row]]), Texts.of([max((text for text in texts if text is not None), key=len), None])


def test_keep_takes_and_gives_ragged_values_and_texts(tmp_path: Path) -> None:
    calls.clear()
    lab, rows, texts = Lab(tmp_path), Ragged.of([[1], [2, 3]]), Texts.of(["a", None, "bc\udc80"])
    for _ in range(2):
        row, text = lab.keep(longest, Ragged(rows.values[::1], rows.offsets.copy()), texts)
        assert (lists(row), list(text)) == ([[2, 3]], ["bc\udc80", None])
    assert (calls, lab.stages[0].rows, lab.stages[1].stored) == (["longest"], 2, 2)
    for others in (Ragged.of([[1, 2], [3]]), Ragged.of([[1], [2, 3]], np.float64)):
        lab.keep(longest, others, texts)
    lab.keep(longest, rows, Texts.of(["a", "", "bc\udc80"]))
    assert len(calls) == 4


def test_texts_that_differ_have_other_words() -> None:
    said = [["ab", "c"], ["a", "bc"], ["ab", "c", None], ["ab", "c", ""], ["ab", "d"]]
    assert len({digest(words(Texts.of(each))) for each in said}) == len(said)
