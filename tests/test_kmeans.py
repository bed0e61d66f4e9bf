"""k-means, the choice of the number of cells, and silhouettes: worked numbers, properties and a naive twin."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest

from coretune.distances import centred, rows_of
from coretune.partitions import (
    Partition,
    choose_k,
    full_silhouette,
    kmeans,
    nearest_center,
    powers_of_two,
    silhouette_curve,
    simplified_silhouette,
    squared_silhouette,
)
from coretune.partitions.lloyd import Level
from coretune.partitions.seeding import seeds

ANGLES = np.deg2rad([0, 5, 12, 20, 40, 95, 100, 170])
EIGHT = np.c_[np.cos(ANGLES), np.sin(ANGLES)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def planted(
    n: int, cells: int, d: int, *, apart: float, seed: int = 0, dtype: type = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Rows around `cells` centres, and the cell of each."""
    random = rng(seed)
    own = np.concatenate([np.arange(cells), random.integers(cells, size=n - cells)])
    return (apart * random.normal(size=(cells, d))[own] + random.normal(size=(n, d))).astype(dtype), own


def same_cells(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two labellings are one partition, whatever the numbers: adjusted Rand index 1."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def lloyd(x: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The twin: Lloyd's passes in float64 until nothing changes; no cell may become empty."""
    x, centers, cell = x.astype(np.float64), centers.astype(np.float64), None
    while True:
        new = ((x[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
        if cell is not None and (new == cell).all():
            return cell, centers
        cell = new
        centers = np.stack([x[cell == j].mean(axis=0) for j in range(len(centers))])


def assert_sound(partition: Partition, x: np.ndarray) -> None:
    """Labels are the nearest of the returned centres, inertia is theirs, no cell is empty, the numbering is stable."""
    away = ((x.astype(np.float64)[:, None] - partition.centers.astype(np.float64)) ** 2).sum(axis=2)
    assert partition.cell.tolist() == away.argmin(axis=1).tolist()
    assert partition.inertia == pytest.approx(away.min(axis=1).sum(), rel=1e-12, abs=1e-12)
    assert partition.sizes.min() > 0 and partition.sizes.sum() == len(x)
    first = [int(partition.members(c)[0]) for c in range(len(partition))]
    assert first == sorted(first)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_worked_example(dtype: type) -> None:
    """Lloyd's passes from rows 0 and 6, and the cosines of the first cell to its mean."""
    partition = kmeans(EIGHT.astype(dtype), 2, rng(), start=EIGHT[[0, 6]], tolerance=0)
    assert partition.cell.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert partition.centers == pytest.approx(np.array([[0.9360, 0.2560], [-0.4152, 0.7182]]), abs=5e-5)
    assert np.linalg.norm(partition.centers, axis=1) == pytest.approx([0.9704, 0.8296], abs=5e-5)
    assert partition.inertia == pytest.approx(1.22707, abs=5e-6)
    center = partition.centers[0]
    cosines = EIGHT[:5] @ center / np.linalg.norm(center)
    assert cosines == pytest.approx([0.9646, 0.9839, 0.9983, 0.9966, 0.9085], abs=5e-5)


@pytest.mark.parametrize("seed", range(6))
def test_without_swaps_it_is_lloyd(seed: int) -> None:
    x, _ = planted(300, 7, 5, apart=1.0, seed=seed)
    start = x[:7]
    cell, centers = lloyd(x, start)
    made = kmeans(x, 7, rng(), start=start, swaps=0, tolerance=0)
    assert same_cells(made.cell, cell)
    ours = centers[[cell[made.members(c)[0]] for c in range(7)]]
    assert made.centers == pytest.approx(ours, abs=1e-6)


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(("n", "c"), [(40, 3), (900, 20), (2500, 9)])
def test_what_every_partition_promises(n: int, c: int, spherical: bool) -> None:
    x, _ = planted(n, c, 6, apart=0.7)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if spherical else x
    before = x.copy()
    made = kmeans(x, c, rng(3), spherical=spherical, tolerance=0)
    assert (x == before).all()
    assert_sound(made, x)
    means = np.stack([x[made.members(j)].mean(axis=0, dtype=np.float64) for j in range(c)])
    if spherical:
        means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert made.centers == pytest.approx(means, abs=1e-6)
    again = kmeans(x, c, rng(3), spherical=spherical, tolerance=0)
    assert again.cell.tolist() == made.cell.tolist() and (again.centers == made.centers).all()
    assert made.notes["converged"] and made.notes["moved"] == 0 and made.notes["spherical"] == spherical
    assert made.notes["imbalance"] == pytest.approx(c * (made.sizes**2).sum() / n**2)


@pytest.mark.parametrize("spherical", [False, True])
def test_inertia_never_rises_over_passes(spherical: bool) -> None:
    x, _ = planted(3000, 30, 8, apart=0.5)
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if spherical else x
    told: list[float] = []
    made = kmeans(x, 12, rng(), spherical=spherical, start=x[:12] * 1.0, swaps=0, tolerance=0, watch=told.append)
    assert len(told) == made.notes["passes"] > 5
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(told))
    assert told[-1] == pytest.approx(made.inertia, rel=1e-6)


def test_swaps_never_leave_a_run_worse() -> None:
    saved = []
    for seed in range(5):
        x, _ = planted(2000, 30, 8, apart=0.6, seed=seed)
        plain = kmeans(x, 30, rng(), start=x[:30], swaps=0, tolerance=0)
        more = kmeans(x, 30, rng(), start=plain.centers, tolerance=0)
        saved.append(1 - more.inertia / plain.inertia)
    assert min(saved) > -1e-6 and max(saved) > 1e-3


def test_a_permutation_of_the_rows_permutes_the_cells_given_the_same_start() -> None:
    x, _ = planted(800, 9, 6, apart=0.8)
    start, order = x[:9], rng(1).permutation(800)
    one, other = kmeans(x, 9, rng(), start=start), kmeans(x[order], 9, rng(), start=start)
    assert same_cells(one.cell[order], other.cell)


def test_rotation_and_translation_leave_the_cells() -> None:
    x, _ = planted(500, 6, 5, apart=1.2, dtype=np.float64)
    turn = np.linalg.qr(rng(2).normal(size=(5, 5)))[0]
    one = kmeans(x, 6, rng(7))
    other = kmeans(x @ turn + 100.0, 6, rng(7))
    assert same_cells(one.cell, other.cell)
    assert other.inertia == pytest.approx(one.inertia, rel=1e-9)


def test_one_cell_is_the_mean_and_as_many_as_rows_are_the_rows() -> None:
    x, _ = planted(60, 5, 4, apart=1.0)
    one = kmeans(x, 1, rng())
    assert one.centers[0] == pytest.approx(x.mean(axis=0), abs=1e-6)
    assert one.inertia == pytest.approx(60 * x.astype(np.float64).var(axis=0).sum(), rel=1e-6)
    every = kmeans(x, 60, rng())
    assert every.inertia == 0 and every.cell.tolist() == list(range(60))


@pytest.mark.parametrize("seed", range(5))
def test_planted_cells_are_found(seed: int) -> None:
    x, own = planted(3000, 16, 12, apart=6.0, seed=seed)
    assert same_cells(kmeans(x, 16, rng(seed)).cell, own)


def test_swaps_free_what_lloyd_is_stuck_in() -> None:
    """Three far groups; two centres start in the first, one between the others: no pass of Lloyd's gets out."""
    random = rng()
    groups = np.array([[0.0, 0.0], [100.0, 0.0], [110.0, 0.0]])
    x = (np.repeat(groups, 50, axis=0) + random.normal(size=(150, 2))).astype(np.float32)
    start = np.array([[-1.0, 0.0], [1.0, 0.0], [105.0, 0.0]])
    stuck = kmeans(x, 3, rng(), start=start, swaps=0, tolerance=0)
    freed = kmeans(x, 3, rng(), start=start, tolerance=0)
    assert stuck.sizes.tolist() != [50, 50, 50]
    assert freed.sizes.tolist() == [50, 50, 50]
    assert freed.notes["swaps"] == 1


def test_empty_cells_get_the_farthest_rows() -> None:
    x = np.array([[0.0], [1.0], [2.0], [30.0]])
    made = kmeans(x, 3, rng(), start=np.array([[1.0], [500.0], [600.0]]), swaps=0, tolerance=0)
    # all rows are nearest 1; the empty cells take 30, then 0, which is as far as 2 and lower
    assert made.cell.tolist() == [0, 1, 1, 2]
    assert made.centers[:, 0].tolist() == [0.0, 1.5, 30.0]


def test_cells_without_a_row_of_their_own_are_an_error_that_counts() -> None:
    x = np.repeat(np.eye(3), 5, axis=0)
    with pytest.raises(ValueError, match="4 cells asked of 15 rows, of which only 3 differ"):
        kmeans(x, 4, rng())
    assert kmeans(x, 3, rng()).inertia == 0
    few = np.concatenate([np.zeros((2000, 3)), np.eye(3)]).astype(np.float32)  # a sample may hold one distinct row
    assert kmeans(few, 4, rng()).inertia == 0


@pytest.mark.parametrize(
    ("c", "options", "message"),
    [
        (0, {}, "0 cells asked of 8 rows"),
        (9, {}, "9 cells asked of 8 rows"),
        (2, {"start": EIGHT[:3]}, r"shape \(2, 2\); found \(3, 2\)"),
        (2, {"start": EIGHT[:2], "restarts": 2}, "nothing to restart"),
        (2, {"restarts": 0}, "0 runs"),
        (2, {"swaps": -1}, "swaps -1"),
        (2, {"max_passes": 0}, "max_passes 0"),
        (2, {"tolerance": float("nan")}, "tolerance nan"),
    ],
)
def test_wrong_arguments(c: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kmeans(EIGHT, c, rng(), **options)


def test_rows_that_are_not_finite_or_not_of_length_one_are_named() -> None:
    x = EIGHT.copy()
    x[5, 1] = np.nan
    with pytest.raises(ValueError, match="row 5 has a value that is not finite"):
        kmeans(x, 2, rng())
    with pytest.raises(ValueError, match=r"length 1; found 2 to 2"):
        kmeans(2 * EIGHT, 2, rng(), spherical=True)


def test_spherical_cells_differ_from_flat_ones() -> None:
    """The mean of rows at -60, 0 and 60 degrees is short, and short means attract."""
    angles = np.deg2rad([-60, 0, 60, 135])
    rows = np.c_[np.cos(angles), np.sin(angles)]
    start = np.stack([rows[:3].mean(axis=0), rows[3]])
    assert np.linalg.norm(start[0]) == pytest.approx(0.667, abs=5e-4)
    between = np.array([[np.cos(np.deg2rad(68)), np.sin(np.deg2rad(68))]])
    assert nearest_center(between, start)[0] == 0
    directions = start / np.linalg.norm(start, axis=1, keepdims=True)
    assert nearest_center(between, directions)[0] == 1
    five = np.concatenate([rows, between])
    made = kmeans(five, 2, rng(), spherical=True, start=directions, swaps=0, tolerance=0)
    assert made.cell[3] == made.cell[4] != made.cell[1]
    assert np.linalg.norm(made.centers, axis=1) == pytest.approx([1, 1])


def test_a_spherical_mean_of_nothing_keeps_the_old_centre() -> None:
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.1, 0.99498744]])
    start = np.array([[0.0, -1.0], [0.0, 1.0]])
    made = kmeans(rows, 2, rng(), spherical=True, start=start, swaps=0, max_passes=1)
    assert [0.0, -1.0] in made.centers.tolist()  # rows 0 and 1 were its own, and have no direction in the mean


def test_restarts_keep_the_best_run() -> None:
    x, _ = planted(400, 40, 6, apart=0.8)
    random = rng(5)
    each = [kmeans(x, 10, random, swaps=0).inertia for _ in range(6)]
    assert kmeans(x, 10, rng(5), swaps=0, restarts=6).inertia == pytest.approx(min(each))
    assert len({round(inertia, 3) for inertia in each}) > 1


def test_max_passes_is_kept_and_said() -> None:
    x, _ = planted(3000, 40, 8, apart=0.3)
    short = kmeans(x, 20, rng(), max_passes=3, tolerance=0)
    assert short.notes["passes"] == 3 and not short.notes["converged"]
    assert_sound(short, x)


def test_half_precision_is_widened_exactly() -> None:
    x = planted(2000, 8, 6, apart=3.0)[0].astype(np.float16)
    one, other = kmeans(x, 8, rng()), kmeans(x.astype(np.float32), 8, rng())
    assert one.cell.tolist() == other.cell.tolist() and one.inertia == other.inertia


def test_rows_far_from_the_origin_keep_their_cells() -> None:
    """Products of uncentred float32 rows would lose these distances altogether."""
    x, own = planted(500, 5, 4, apart=6.0)
    far = (x + 4096).astype(np.float32)
    made = kmeans(far, 5, rng())
    assert same_cells(made.cell, own)
    assert_sound(made, far)


def test_torch_tensors_give_what_numpy_gives() -> None:
    torch = pytest.importorskip("torch")
    x, _ = planted(2500, 9, 6, apart=4.0)
    for dtype in (torch.float32, torch.float64):
        tensor = torch.from_numpy(x).to(dtype)
        one, other = kmeans(tensor, 9, rng()), kmeans(tensor.numpy(), 9, rng())
        assert one.cell.tolist() == other.cell.tolist()
        assert one.centers == pytest.approx(other.centers, abs=1e-6)
        assert one.inertia == pytest.approx(other.inertia)
    half = torch.from_numpy(x).to(torch.bfloat16)
    assert kmeans(half, 9, rng()).cell.tolist() == kmeans(half.float().numpy(), 9, rng()).cell.tolist()


def test_choose_k_takes_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x, own = planted(600, 4, 16, apart=4.0)
    made = choose_k(torch.from_numpy(x), rng(), grid=(2, 4, 8))
    assert same_cells(made.cell, own)
    assert made.notes["silhouette"]["corrected"] == pytest.approx(
        choose_k(x, rng(), grid=(2, 4, 8)).notes["silhouette"]["corrected"], abs=1e-3
    )


def test_seeds_are_drawn_as_k_means_plus_plus_draws_them() -> None:
    x = np.array([[0.0], [1.0], [3.0], [7.0]])
    rows = rows_of(x)
    mean, spread = centred(rows)
    level = Level(rows, None, spread, mean, spherical=False)
    exact: Counter[tuple[float, ...]] = Counter()
    for order in permutations(x[:, 0].tolist(), 3):
        chance = 1 / 4
        for i in (1, 2):
            away = [min((value - one) ** 2 for one in order[:i]) for value in x[:, 0]]
            chance *= min((order[i] - one) ** 2 for one in order[:i]) / sum(away)
        exact[order] = chance
    random = rng()
    runs = 4000
    found = Counter(tuple(seeds(level, 3, random)[:, 0].tolist()) for _ in range(runs))
    for order, chance in exact.items():
        assert found[order] / runs == pytest.approx(chance, abs=4 * (chance * (1 - chance) / runs) ** 0.5 + 1e-9)


# Silhouettes and the number of cells


def test_worked_silhouettes() -> None:
    x = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [15.0]])
    assert full_silhouette(x, np.array([0, 0, 0, 1, 1, 1], np.int32)) == pytest.approx(0.7882, abs=5e-5)
    centers = np.array([[1.0], [12.0]])
    assert simplified_silhouette(x, centers) == pytest.approx(0.8800, abs=5e-5)
    assert squared_silhouette(x, centers) == pytest.approx(0.9796, abs=5e-5)


def test_silhouettes_of_rows_alone_and_of_one_cell_are_zero() -> None:
    x = np.array([[0.0], [1.0], [5.0]])
    # 0 and 1: a = 1, b = 5 and 4; the row alone counts 0
    assert full_silhouette(x, np.array([0, 0, 2], np.int32)) == pytest.approx((4 / 5 + 3 / 4 + 0) / 3)
    assert full_silhouette(x, np.zeros(3, np.int32)) == 0
    assert simplified_silhouette(x, np.array([[2.0]])) == squared_silhouette(x, np.array([[2.0]])) == 0
    assert simplified_silhouette(x, np.array([[0.0], [0.0]])) == 0


def test_the_bias_that_is_corrected_for() -> None:
    """On data without cells the simplified silhouettes rise with K, the full one does not."""
    x = rng().normal(size=(2000, 32)).astype(np.float32)
    for c, squared, simplified, full in [
        (8, 0.090, 0.047, 0.022),
        (128, 0.208, 0.116, 0.004),
        (512, 0.418, 0.280, -0.031),
    ]:
        made = kmeans(x, c, rng(1), swaps=0)
        assert squared_silhouette(x, made.centers) == pytest.approx(squared, abs=0.01)
        assert simplified_silhouette(x, made.centers) == pytest.approx(simplified, abs=0.01)
        assert full_silhouette(x, made.cell) == pytest.approx(full, abs=0.01)


def test_choose_k_finds_planted_cells_where_the_uncorrected_curve_does_not() -> None:
    x, own = planted(1500, 8, 6, apart=1.6, seed=4)
    made = choose_k(x, rng(), grid=(2, 4, 8, 16, 32, 750))
    curve = made.notes["silhouette"]
    assert len(made) == curve["chosen"] == 8
    assert curve["clusters"] == [2, 4, 8, 16, 32, 750] and curve["rows"] == 1500 and curve["left_out"] == []
    assert curve["corrected"] == pytest.approx(np.subtract(curve["simplified"], curve["without_cells"]).tolist())
    assert max(curve["corrected"]) == curve["corrected"][2]
    assert max(curve["simplified"]) == curve["simplified"][5]  # 750 cells of 1,500 rows
    assert np.mean([np.bincount(own[made.members(c)]).max() / made.sizes[c] for c in range(8)]) > 0.9


def test_data_without_cells_has_a_flat_corrected_curve() -> None:
    x = rng(2).normal(size=(1200, 10)).astype(np.float32)
    curve = choose_k(x, rng(), grid=(4, 16, 64)).notes["silhouette"]
    assert np.abs(curve["corrected"]).max() < 0.01
    assert curve["simplified"][2] - curve["simplified"][0] > 0.05


def test_choose_k_samples_large_pools_and_leaves_out_what_cannot_be_tried() -> None:
    x, _ = planted(1000, 4, 5, apart=5.0)
    made = choose_k(x, rng(), grid=(500, 2, 4, 8), sample=100)
    assert made.notes["silhouette"]["rows"] == 100 and made.notes["silhouette"]["left_out"] == [500]
    assert len(made) == 4 and len(made.cell) == 1000
    with pytest.raises(ValueError, match="ask for 1 to 50"):
        choose_k(x, rng(), grid=(60, 70), sample=100)
    copies = np.repeat(planted(12, 3, 5, apart=5.0)[0], 5, axis=0)
    assert choose_k(copies, rng(), grid=(2, 4, 12, 16)).notes["silhouette"]["left_out"] == [16]


def test_a_grid_of_one_is_k_means() -> None:
    x, _ = planted(200, 4, 5, apart=2.0)
    assert choose_k(x, rng(), grid=(7,)).cell.tolist() == kmeans(x, 7, rng()).cell.tolist()


def test_powers_of_two_end_at_39_rows_a_cell_and_at_half_the_budget() -> None:
    assert powers_of_two(52_002, 2_600) == (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    assert powers_of_two(52_002, 520) == (2, 4, 8, 16, 32, 64, 128, 256)
    assert powers_of_two(52_002, 512) == (2, 4, 8, 16, 32, 64, 128, 256)
    assert powers_of_two(78, 1000) == (2,)
    assert powers_of_two(77, 1000) == powers_of_two(1000, 3) == (1,)


def test_the_curve_of_the_code_of_diversify_and_conquer() -> None:
    x, _ = planted(400, 4, 5, apart=5.0)
    repo = silhouette_curve(x, (2, 4, 200), rng(), of=squared_silhouette)
    ours = silhouette_curve(x, (2, 4, 200), rng())
    assert all(squared > plain > 0 for squared, plain in zip(repo, ours, strict=True))
