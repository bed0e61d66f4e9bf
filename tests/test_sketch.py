"""The count sketch: its law, its compiled loop against whole tensors and against plain numpy, and Adam's directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coretune.features._adam import Direction, Moments, adam, less
from coretune.features._sketch import CountSketch, Places, add_by_blocks, add_by_gather, gather_of, places_of

LESS_CONSTANTS = (0.9, 0.1, 0.999, 0.001, 1e-8, 0.0)


def naive(entries: np.ndarray, places: Places, d: int) -> np.ndarray:
    """Entry by entry."""
    out = np.zeros((len(entries), d))
    for e in range(entries.shape[1]):
        out[:, (e % d + places.offsets[e // d]) % d] += float(places.signs[e]) * entries[:, e].astype(np.float64)
    return out


def matrices(size: int, d: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """The bucket and the sign of every entry under many seeds, `(seeds, size)` each."""
    entry = np.arange(size)
    each = [places_of("layer.weight", size, d, seed) for seed in range(seeds)]
    offsets = np.array([places.offsets for places in each])
    return (entry % d + offsets[:, entry // d]) % d, np.array([places.signs for places in each], dtype=np.float64)


def inner_products(x: np.ndarray, y: np.ndarray, d: int, seeds: int) -> np.ndarray:
    """Of the sketches of x and y, for every seed."""
    bucket, sign = matrices(len(x), d, seeds)
    flat = (bucket + d * np.arange(seeds)[:, None]).ravel()
    one, other = (np.bincount(flat, (sign * each).ravel(), seeds * d).reshape(seeds, d) for each in (x, y))
    return (one * other).sum(1)


@pytest.mark.parametrize("size, d", [(1024, 16), (700, 64), (96, 64), (2048, 512)])
def test_inner_products_are_kept_on_average(size: int, d: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=size)
    y = x + rng.normal(size=size)
    assert inner_products(x, y, d, 2500).mean() / (x @ y) == pytest.approx(1, abs=0.05)


def test_the_variance_is_that_of_a_dense_sign_matrix(rng: np.random.Generator) -> None:
    """(|x|²|y|² + <x, y>² - 2 sum x²y²) / d; entries of one block never meet, which takes 1 of 64 of it."""
    size, d = 4096, 64
    x = rng.normal(size=size)
    y = 0.5 * x + rng.normal(size=size)
    found = inner_products(x, y, d, 4000).var()
    law = ((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)) / d
    assert found / law == pytest.approx(1, abs=0.1)


def test_entries_of_a_vector_of_one_number_spread_evenly() -> None:
    bucket, sign = matrices(256, 16, 2000)
    counts = np.bincount(bucket[:, 5], minlength=16)
    assert counts.min() > 80 and counts.max() < 175
    assert np.abs(sign.mean(0)).max() < 0.1


def test_signs_and_offsets_never_change() -> None:
    """Worked out once and written down: stored vectors could not be compared with new ones otherwise."""
    places = places_of("base_model.model.layers.0.q_proj.lora_A.weight", 40, 16, seed=7)
    assert places.signs[:12].tolist() == [1, -1, 1, 1, -1, -1, -1, 1, -1, -1, -1, 1]
    assert places.offsets.tolist() == [5, 3, 14]


def test_signs_do_not_depend_on_size_or_width() -> None:
    one, other = places_of("w", 1000, 64, 3), places_of("w", 700, 512, 3)
    np.testing.assert_array_equal(one.signs[:700], other.signs)
    assert (one.signs != places_of("v", 1000, 64, 3).signs).any()
    assert (one.signs != places_of("w", 1000, 64, 4).signs).any()


@pytest.mark.parametrize("size, d", [(1, 8), (5, 8), (8, 8), (100, 8), (1000, 512), (1025, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("directed", [False, True])
def test_the_compiled_loop_whole_tensors_and_plain_numpy_agree(
    size: int, d: int, dtype: torch.dtype, directed: bool
) -> None:
    torch.manual_seed(size)
    places = places_of("w", size, d, 0)
    entries = torch.randn(3, size).to(dtype)
    direction = Direction(torch.randn(size), torch.rand(size), LESS_CONSTANTS) if directed else None
    compiled, gathered = torch.ones(3, d), torch.ones(3, d)
    add_by_blocks(compiled, entries, places, direction)
    add_by_gather(gathered, entries, gather_of(places, d, "cpu"), direction)
    want = entries.float() if direction is None else direction.of(entries.float())
    np.testing.assert_allclose(compiled.numpy(), 1 + naive(want.numpy(), places, d), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compiled, gathered, rtol=1e-5, atol=1e-5)


def test_parameters_add_up_in_any_order() -> None:
    sketch = CountSketch({"a": 300, "b": 77}, 32, 0, "cpu")
    torch.manual_seed(0)
    entries = {"a": torch.randn(2, 300), "b": torch.randn(2, 77)}
    both, other, apart = torch.zeros(2, 32), torch.zeros(2, 32), torch.zeros(2, 2, 32)
    for place, name in enumerate(("a", "b")):
        sketch.add(both, name, entries[name])
        sketch.add(apart[place], name, entries[name])
    for name in ("b", "a"):
        sketch.add(other, name, entries[name])
    torch.testing.assert_close(both, apart.sum(0))
    torch.testing.assert_close(both, other)


def test_adam_is_the_optimizer_s_next_step() -> None:
    """Against torch's own optimizer: its step after t steps with gradient g, divided by the learning rate."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(50))
    optimizer = torch.optim.Adam([weight], lr=1.0, betas=(0.8, 0.99), eps=1e-5)
    for _ in range(4):
        weight.grad = 1e-3 * torch.randn(50)
        optimizer.step()
    kept = {name: each.clone() for name, each in optimizer.state[weight].items()}
    moments = Moments({"w": kept["exp_avg"]}, {"w": kept["exp_avg_sq"]}, 4, 0.8, 0.99, 1e-5)
    g, before = 1e-3 * torch.randn(50), weight.detach().clone()
    weight.grad = g
    optimizer.step()
    torch.testing.assert_close(adam(moments, "w", lambda x: x).of(g[None])[0], before - weight.detach())


def test_less_has_its_own_form() -> None:
    """(0.9 m + 0.1 g) / sqrt(0.999 v + 0.001 g² + 1e-8), whatever the optimizer's constants."""
    m, v, g = torch.tensor([3e-7, -1e-3]), torch.tensor([7.6e-13, 4e-6]), torch.tensor([[1e-6, 2e-3]])
    moments = Moments({"w": m}, {"w": v}, 375, 0.5, 0.5, 1.0)
    want = (0.9 * m + 0.1 * g) / (0.999 * v + 0.001 * g**2 + 1e-8).sqrt()
    torch.testing.assert_close(less(moments, "w", lambda x: x).of(g), want)
    assert want[0, 0].item() == pytest.approx(3.7e-7 / 1e-4, rel=1e-3)  # so small a v does nothing
