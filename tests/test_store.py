from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from coretune import store
from coretune.errors import FolderError
from coretune.features import place
from coretune.lab import Lab
from coretune.selection import Selection
from coretune.store import folders
from coretune.store.arrays import scan, write_array
from coretune.store.digests import address, array_digest, digest, function_name, words
from coretune.store.joining import join
from coretune.store.kept import read_result, write_result
from coretune.store.keys import find, first_of_each, locate
from tests.tiny_features import Hashed, Letters, tiny_pool


@dataclass(frozen=True)
class Inner:
    rate: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner
    folder: str = field(default="", metadata=place())
    version: ClassVar[int] = 1


@dataclass(frozen=True)
class Anything:
    value: Any
    version: ClassVar[int] = 1


def keys_of(*numbers: int) -> np.ndarray:
    """Keys whose first halves are all alike: the second decides."""
    return np.array([[7, number] for number in numbers], dtype=np.uint64)


# Addresses


def test_addresses_stay_what_they_are() -> None:
    """What users have measured is found by these: a change here throws all of it away."""
    assert address(Hashed()) == "d61998932f980d4f9c4d4d5d165ce77d"
    assert digest(words([1, 1.0, "é", None, True, (b"x",), {"b": 2, "a": float("inf")}])) == digest(
        {
            "list": [
                1,
                1.0,
                "é",
                None,
                True,
                {"tuple": [{"bytes": "78"}]},
                {"mapping": [["a", {"float": "inf"}], ["b", 2]]},
            ]
        }
    )


def test_an_address_is_the_same_in_another_process() -> None:
    code = "from tests.tiny_features import *; from coretune.store.digests import address; print(address(Hashed(5)))"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == address(Hashed(5))


def test_places_do_not_count_and_everything_else_does() -> None:
    spec = Outer(Inner(0.1, ("a",)), folder="here")
    assert address(spec) == address(Outer(Inner(0.1, ("a",)), folder="there"))
    others = [Outer(Inner(0.2, ("a",))), Outer(Inner(0.1)), Outer(Inner(0.1, ("a", "b"))), Anything(Inner(0.1, ("a",)))]
    assert len({address(each) for each in [spec, *others]}) == 5


def test_a_new_version_is_a_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    before = address(Hashed())
    monkeypatch.setattr(Hashed, "version", 2)
    assert address(Hashed()) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ((1,), [1]),
        ("a", b"a"),
        (None, "none"),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, [["a", 1]]),
        (float("nan"), "nan"),
        (("a", ("b",)), (("a", "b"),)),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (np.zeros(0, np.float32), np.zeros((0, 3), np.float32)),
        (np.array(["a"]), np.array([b"a"])),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (json.dumps, json.loads),
        (Inner(0.1), Inner(0.1, ("",))),
    ],
)
def test_what_differs_has_other_words(one: Any, other: Any) -> None:
    assert digest(words(one)) != digest(words(other))


def test_a_generator_is_told_by_what_it_will_draw_and_spawn() -> None:
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    assert words(one) == words(other)
    other.spawn(1)
    assert words(one) != words(other)
    one.spawn(1)
    assert words(one) == words(other)
    one.random()
    assert words(one) != words(other)


def test_an_array_is_told_by_its_content_whatever_its_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(600, dtype=np.float32).reshape(20, 30)
    whole = array_digest(x)
    assert array_digest(np.asfortranarray(x)) == whole
    assert array_digest(np.repeat(x, 2, axis=1)[:, ::2]) == whole
    monkeypatch.setattr("coretune.store.digests.CHUNK_BYTES", 128)
    assert array_digest(x) == whole
    x[19, 29] += 1
    assert array_digest(x) != whole


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Anything([1]), "field 'value' of .*test_store.Anything holds a list"),
        (Anything(np.zeros(2)), "holds a ndarray"),
        (Anything(Path("x")), "a pathlib"),
        (Inner(0.1), "has no version"),
        ("minilm", "no frozen dataclass"),
        (Anything(lambda: 1), "no lasting name"),
        (Anything(object()), "builtins.object cannot be part of an address"),
    ],
)
def test_what_cannot_be_an_address_is_refused(spec: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        address(spec)


def test_a_pool_in_a_spec_counts_by_its_content_and_its_candidates() -> None:
    pool, same, other = tiny_pool(range(5)), tiny_pool(range(5)), tiny_pool(range(6))
    assert address(Anything(pool)) == address(Anything(same))
    assert address(Anything(pool)) != address(Anything(other))
    assert address(Anything(pool)) != address(Anything(pool.exclude(np.array([1]), "leak")))


def test_only_module_level_functions_have_a_name() -> None:
    assert function_name(json.dumps) == "json.dumps"
    for fn in (lambda: 1, keys_of(1).sum, "text"):
        with pytest.raises(ValueError, match="no lasting name"):
            function_name(fn)


# Keys


def test_find_is_a_dictionary_also_where_first_halves_are_shared(rng: np.random.Generator) -> None:
    for size, most in ((0, 5), (1, 2), (50, 4), (400, 6), (400, 10**9)):
        held = np.unique(rng.integers(0, most, (size, 2)).astype(np.uint64), axis=0)
        held = rng.permutation(held)
        wanted = np.concatenate([rng.integers(0, most, (300, 2)).astype(np.uint64), held])
        known = {tuple(key): at for at, key in enumerate(held.tolist())}
        expected = [known.get(tuple(key), -1) for key in wanted.tolist()]
        np.testing.assert_array_equal(find(held, wanted), expected)


def test_locate_takes_the_first_array_that_holds_a_key() -> None:
    which, place = locate([keys_of(1, 2), keys_of(3, 2, 4)], keys_of(4, 2, 9, 1, 3, 2))
    assert which.tolist() == [1, 0, -1, 0, 1, 0]
    assert place.tolist() == [2, 1, -1, 0, 0, 1]


def test_first_of_each_by_hand() -> None:
    assert first_of_each(keys_of(5, 3, 5, 5, 1, 3)).tolist() == [0, 1, 4]
    assert first_of_each(np.empty((0, 2), dtype=np.uint64)).tolist() == []


# Arrays


def put(place: Path, label: str, numbers: range, marked: tuple[int, ...] = (), nan: tuple[int, ...] = ()) -> Path:
    """Store the squares of numbers, under keys made of them."""
    values = np.array([[number**2, -number] for number in numbers], dtype=np.float32)
    values[[numbers.index(number) for number in nan]] = np.nan
    flags = {"odd one": np.array([number in marked for number in numbers])}
    return write_array(place, label, keys_of(*numbers), values, flags)


def test_joined_arrays_hold_every_row_once_in_the_order_of_their_labels(tmp_path: Path) -> None:
    put(tmp_path, "1-0", range(0, 5), marked=(3,))
    put(tmp_path, "1-2", range(8, 10), nan=(9,))
    put(tmp_path, "1-1", range(4, 8))
    join(tmp_path, small_rows=5)
    (array,) = scan(tmp_path)
    assert array.path.name.startswith("1-0-")
    assert array.keys[:, 1].tolist() == list(range(10))
    np.testing.assert_array_equal(array.data()[:9], [[n**2, -n] for n in range(9)])
    assert np.isnan(array.data()[9]).all()
    assert array.mark("odd one").nonzero()[0].tolist() == [3]
    assert (~array.finite()).nonzero()[0].tolist() == [9]
    assert array.not_finite == 1


def test_long_arrays_are_left_alone_until_as_many_rows_are_new(tmp_path: Path) -> None:
    lengths = []
    for number in range(40):
        put(tmp_path, f"{number:03d}", range(10 * number, 10 * number + 10))
        join(tmp_path, small_rows=10)
        lengths.append(sorted(len(each) for each in scan(tmp_path)))
    assert sum(lengths[-1]) == 400
    assert [len(each) for each in lengths] == [number.bit_count() for number in range(1, 41)]
    kept = {path.name for path in folders.finished(tmp_path)}
    put(tmp_path, "999", range(1000, 1010))
    join(tmp_path, small_rows=10)
    assert len(kept & {path.name for path in folders.finished(tmp_path)}) >= 1


def test_arrays_are_joined_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coretune.store.joining.BLOCK_BYTES", 16)
    for number in range(3):
        put(tmp_path, str(number), range(7 * number, 7 * number + 7))
    join(tmp_path, small_rows=10)
    (array,) = scan(tmp_path)
    np.testing.assert_array_equal(array.data(), [[n**2, -n] for n in range(21)])


def test_values_of_other_forms_are_not_joined(tmp_path: Path) -> None:
    write_array(tmp_path, "a", keys_of(1), np.zeros((1, 2), np.float32), {})
    write_array(tmp_path, "b", keys_of(2), np.zeros((1, 3), np.float32), {})
    with pytest.raises(ValueError, match="raise its version"):
        join(tmp_path, small_rows=10)
    assert len(scan(tmp_path)) == 2


def test_a_mark_may_be_any_words(tmp_path: Path) -> None:
    on = np.array([True])
    write_array(tmp_path, "a", keys_of(1), np.zeros(1), {"none": ~on, "../up, or 50% of it\n": on})
    write_array(tmp_path, "b", keys_of(2), np.zeros(1), {"é" * 300: on})
    join(tmp_path, small_rows=10)
    (array,) = scan(tmp_path)
    assert array.marks == {"none": 0, "../up, or 50% of it\n": 1, "é" * 300: 1}
    assert {name: array.mark(name).tolist() for name in array.marks} == {
        "none": [False, False],
        "../up, or 50% of it\n": [True, False],
        "é" * 300: [False, True],
    }


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def scribble(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((name, hurt) for name in ("data.npy", "rows.npy", "mark.0.npy") for hurt in (cut, lengthen, Path.unlink)),
        *(("done.json", hurt) for hurt in (cut, scribble, Path.unlink)),
        ("rows.npy", scribble),
        ("data.npy", scribble),
    ],
)
def test_a_damaged_array_is_said_and_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Any
) -> None:
    pool, log = tiny_pool(range(40)), tmp_path / "log"
    want = Lab(tmp_path).features(Hashed(), pool).array()
    (array,) = scan(tmp_path / "features" / address(Hashed()))
    damage(array.path / name)
    lab = Lab(tmp_path)
    with caplog.at_level(logging.WARNING):
        found = lab.features(Hashed(log=str(log)), pool)
    np.testing.assert_array_equal(found.array(), want)
    assert lab.stages[-1].rows == 40
    assert "damaged" in caplog.text and str(array.path) in caplog.text
    caplog.clear()
    lab.features(Hashed(log=str(log)), pool)
    assert lab.stages[-1].rows == 0
    assert caplog.text == ""


# Folders


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folders.new_folder(tmp_path, "a", {}) as draft:
        (draft / "half").write_text("half")
        assert folders.finished(tmp_path) == []
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_living_are_not_swept_and_the_dead_are(tmp_path: Path) -> None:
    long_ago = time.time() - 2 * folders.YOUNG_SECONDS
    dead, young = tmp_path / ".dead", tmp_path / ".young"
    for path in (dead, young):
        path.mkdir()
        (path / "x").write_bytes(b"12345")
    os.utime(dead, (long_ago, long_ago))
    (tmp_path / ".spec").write_text("a")
    os.utime(tmp_path / ".spec", (long_ago, long_ago))
    with folders.new_folder(tmp_path, "a", {}) as alive:
        (alive / "x").write_text("x")
        os.utime(alive, (long_ago, long_ago))
        assert folders.sweep(tmp_path) == 6
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, young.name])
    assert len(folders.finished(tmp_path)) == 1


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """A disk on which no file can be longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_says_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    pool, log = tiny_pool(range(200)), tmp_path / "log"
    spec = Hashed(width=256, log=str(log))
    Lab(tmp_path).features(spec, pool, np.arange(16))
    with file_limit(12_000), pytest.raises(FolderError, match=r"no room left.*--store DIR.*run again"):
        Lab(tmp_path).features(spec, pool)
    lab = Lab(tmp_path)
    feature = lab.features(spec, pool)
    assert feature.shape == (200, 256)
    assert (lab.stages[-1].rows, lab.stages[-1].stored) == (184, 16)


def test_a_disk_too_full_to_join_on_is_read_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pool, spec = tiny_pool(range(200)), Hashed(width=256)
    with file_limit(18_000):  # a shard of 16 rows fits, 200 rows do not
        some = Lab(tmp_path).features(spec, pool)
    assert "stay as they are" in caplog.text
    assert len(scan(tmp_path / "features" / address(spec))) == 13
    caplog.clear()
    np.testing.assert_array_equal(some.array(), Lab(tmp_path).features(spec, pool).array())
    assert len(scan(tmp_path / "features" / address(spec))) == 1
    assert caplog.text == ""


def test_a_store_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FolderError, match=r"cannot be used.*--store DIR"):
        Lab(tmp_path / "file").features(Hashed(), tiny_pool(range(3)))


def test_other_errors_of_the_disk_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cable"), folders.failing_clearly(tmp_path):
        raise OSError(errno.EIO, "cable")


def test_the_store_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert store.default_store() == Path("/some/cache/coretune")
    for unset in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert store.default_store() == Path.home() / ".cache" / "coretune"


# Kept results


@dataclass(frozen=True)
class Cells:
    cell: np.ndarray
    centers: np.ndarray | None
    inertia: float | None
    notes: dict[Any, Any]


def same(one: Any, other: Any) -> bool:
    """Whether two results are alike, down to types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return same(vars(one), vars(other))
    return one == other or (one != one and other != other)


@pytest.mark.parametrize(
    "result",
    [
        None,
        True,
        3,
        0.1,
        float("nan"),
        float("-inf"),
        "text é \udc80",
        np.float32(0.1),
        np.int64(-1),
        np.bool_(True),
        np.arange(12, dtype=np.int32).reshape(3, 4),
        np.array([], dtype=np.float32).reshape(0, 7),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(["a", "bcd"]),
        (np.arange(3), [1, (2.5, "x")], {}),
        {"curve": {8: 0.5, 16: np.float64(0.25)}, (1, 2): None},
        Selection.of([4, 1, 3], np.array([3.0, 2.0, np.nan])),
        Cells(np.zeros(3, np.int32), None, 0.25, {"curve": [(8, 0.5)], 16: np.ones(2)}),
    ],
)
def test_kept_results_come_back_as_they_were(tmp_path: Path, result: Any) -> None:
    write_result(tmp_path, result)
    held = read_result(tmp_path)
    assert held is not None
    assert same(held[0], result)


def test_a_kept_array_may_be_written_to_and_stays_as_it_was(tmp_path: Path) -> None:
    write_result(tmp_path, np.zeros(10_000))
    for _ in range(2):
        held = read_result(tmp_path)
        assert held is not None and held[0].sum() == 0
        held[0][:] = 1


@pytest.mark.parametrize("result", [object(), {1, 2}, np.array([object()]), json.dumps, [Path("x")]])
def test_results_of_other_kinds_are_refused(tmp_path: Path, result: Any) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        write_result(tmp_path, result)
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    "said", [{"module": "os", "class": "system", "fields": {}}, {"module": "no_such", "class": "X", "fields": {}}]
)
def test_a_result_never_calls_what_is_no_dataclass(tmp_path: Path, said: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_result(tmp_path, None)
    with folders.new_folder(tmp_path, "result", {}) as draft:
        (draft / "value.json").write_text(json.dumps(said))
    folders.remove(folder)
    assert read_result(tmp_path) is None
    assert "computed again" in caplog.text


# Listing and pruning


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with two features and a kept result."""
    lab = Lab(tmp_path)
    pool = tiny_pool(range(20))
    lab.features(Hashed(), pool)
    lab.features(Letters(), pool)
    lab.keep(np.linalg.norm, np.arange(3.0))
    return tmp_path


def test_listing_says_what_is_stored(filled: Path) -> None:
    entries = {entry.made_from: entry for entry in store.listing(filled)}
    assert len(entries) == 3 and entries["Letters 3"].rows == 20
    hashed = entries["Hashed 1 (width: 4)"]
    assert (hashed.room, hashed.address, hashed.rows) == ("features", address(Hashed()), 20)
    assert hashed.bytes == sum(path.stat().st_size for path in hashed.path.rglob("*") if path.is_file())
    assert hashed.idle_days < 0.01
    (kept,) = [entry for entry in entries.values() if entry.room == "kept"]
    assert kept.made_from.startswith("norm(array ")
    assert store.listing(filled / "nowhere") == []


def test_prune_by_address_age_and_all(filled: Path) -> None:
    first = address(Hashed())
    old = time.time() - 10 * 86400
    os.utime(filled / "features" / address(Letters()) / "spec.json", (old, old))
    assert [entry.address for entry in store.prune(filled, idle_days=9)] == [address(Letters())]
    assert store.prune(filled, idle_days=9) == []
    assert store.prune(filled) == []
    assert [entry.address for entry in store.prune(filled, addresses=[first[:6]])] == [first]
    assert [entry.room for entry in store.prune(filled, everything=True)] == ["kept"]
    assert store.listing(filled) == []
    assert [path for path in filled.rglob("*") if path.is_file()] == []


def test_copies_of_models_and_pools_are_listed_and_pruned_too(filled: Path) -> None:
    for name, size in (("models/copies/abc-1", 10), ("pools/def", 20), ("models/digests", 5), ("pools/.writing-x", 7)):
        (filled / name).mkdir(parents=True)
        (filled / name / "file").write_bytes(b"x" * size)
    found = {(entry.room, entry.address): entry for entry in store.listing(filled)}
    assert found["models", "abc-1"].bytes == 10
    assert found["models", "abc-1"].made_from == "prepared copy, models/copies/abc-1"
    assert found["pools", "def"].bytes == 20
    assert len(found) == 5
    store.prune(filled, addresses=["def"])
    assert sorted(path.name for path in (filled / "pools").iterdir()) == [".writing-x"]
    store.prune(filled, everything=True)
    assert (filled / "models" / "digests" / "file").exists()
    assert not (filled / "models" / "copies" / "abc-1").exists()


def test_using_a_feature_makes_it_young(filled: Path) -> None:
    spec = filled / "features" / address(Hashed()) / "spec.json"
    os.utime(spec, (0, 0))
    Lab(filled).features(Hashed(), tiny_pool(range(3)))
    assert {entry.made_from for entry in store.prune(filled, idle_days=1)} == set()


@pytest.mark.parametrize("asked", ["", "zz"])
def test_pruning_what_is_not_there_says_so(filled: Path, asked: str) -> None:
    with pytest.raises(ValueError, match=f"address '{asked}' asked to be pruned"):
        store.prune(filled, addresses=[asked])
    assert len(store.listing(filled)) == 3


def test_what_lies_beside_the_store_is_not_the_stores(filled: Path) -> None:
    (filled / "thesis").mkdir()
    (filled / "thesis" / "chapter").write_text("years of work")
    store.prune(filled, everything=True)
    assert (filled / "thesis" / "chapter").exists()


def test_a_pruned_feature_can_be_read_on_and_measured_again(filled: Path) -> None:
    pool = tiny_pool(range(20))
    lab = Lab(filled)
    feature = lab.features(Hashed(), pool)
    store.prune(filled, everything=True)
    again = lab.features(Hashed(), pool)
    assert lab.stages[-1].rows == 20
    np.testing.assert_array_equal(feature.array(), again.array())
