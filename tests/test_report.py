"""The report: its numbers against naive twins, its page against hostile records, and what it says of absent things."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coretune import atomic, report
from coretune.errors import FolderError
from coretune.pages import charts, comparison, examples, points, rounds, spreads, summary, tables, wording
from coretune.pages.run_files import read_run
from coretune.report import script_json, write_report
from tests.run_folders import HOSTILE, SILHOUETTE, add_rounds, make_run_folder

VOID = {"meta", "br", "img", "input", "col", "link", "hr"}


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, text by element, whether all is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.inside: dict[str, str] = {}
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            key = self.open[-1] + ("-data" if self.elements[-1][1].get("type") == "application/json" else "")
            self.inside[key] = self.inside.get(key, "") + data
        else:
            self.said.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text("utf-8"))


def column(folder: Path, name: str) -> np.ndarray:
    return np.array(pq.read_table(folder / "selection.parquet")[name].to_pylist(), dtype=object)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path / "run", scores=("quality", "closeness"))


# ---- the page as such


def test_page_loads_nothing_and_allows_only_its_own_style_and_script(folder: Path) -> None:
    page = page_of(folder)
    named = {"href", "src", "srcset", "data", "action", "poster", "xlink:href"}
    links = [value or "" for _, attributes in page.elements for key, value in attributes.items() if key in named]
    assert links and all(link.startswith("#") for link in links)
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert all(link[1:] in ids for link in links)
    assert "url(" not in page.inside["style"] and "@import" not in page.inside["style"]
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http"):
        assert forbidden not in page.inside["script"]
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';") and "unsafe" not in policy
    for part in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inside[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy


def test_page_is_well_formed_and_labelled(folder: Path) -> None:
    page = page_of(folder)
    assert not page.open
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"]  # the policy would block them
        for key in ("aria-labelledby", "aria-describedby"):
            assert key not in attributes or attributes[key] in ids
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("aria-label")
    assert len(page.all("h1")) == 1 and page.all("html")[0]["lang"] == "en"


def test_same_folder_gives_the_same_bytes_and_leaves_nothing_else(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_failed_report_keeps_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report(folder).read_bytes()
    monkeypatch.setattr(atomic.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(FolderError, match=r"report.html cannot be written: disk full"):
        write_report(folder)
    assert (folder / "report.html").read_bytes() == old
    assert not list(folder.glob(".report*"))


@pytest.mark.parametrize("missing", ["run.toml", "selection.parquet"])
def test_unfinished_folder_is_refused_by_name(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(FolderError, match=rf"{folder}.*no {missing}"):
        write_report(folder)


def test_unreadable_files_are_refused(folder: Path) -> None:
    (folder / "selection.parquet").write_bytes(b"not parquet")
    with pytest.raises(FolderError, match="cannot be read"):
        write_report(folder)


def test_folder_still_being_written_goes_by_its_final_name(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / ".ltd-5.part-123")
    assert "coretune run ltd-5/run.toml" in page_of(folder).text


# ---- hostile text


def test_hostile_text_is_only_ever_text(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", texts=HOSTILE, scores=("quality", HOSTILE[1], HOSTILE[2]))
    plain = page_of(make_run_folder(tmp_path / "plain", scores=("quality", "b", "c")))
    page = page_of(folder)
    assert not page.open
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert len(page.all("script")) == 2 and not page.all("img")
    assert page.inside["script"] == plain.inside["script"] and page.inside["style"] == plain.inside["style"]
    for text in HOSTILE:
        assert wording.visible(text, 40).rstrip("…") in page.text
    assert "{{7*7}}" in page.text
    for letter in "\x00\x07\x1b\u202e\u2066\u2028":
        assert letter not in page.text
    assert (folder / "report.html").stat().st_size < 400_000


def test_hostile_text_inside_the_map_data_cannot_end_it(tmp_path: Path) -> None:
    page = page_of(make_run_folder(tmp_path / "run", texts=HOSTILE, scores=("quality", HOSTILE[0])))
    assert not re.search("[<>&\u2028]", page.inside["script-data"])
    names = [each["name"] for each in json.loads(page.inside["script-data"])["columns"]]
    assert HOSTILE[0] in names


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_script_json_is_the_same_value_without_markup(value: Any) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)


@given(st.text(), st.integers(1, 50))
def test_visible_text_is_one_line_within_its_length(text: str, most: int) -> None:
    line = wording.visible(text, most)
    assert len(line) <= most
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", wording.visible(text))


def test_visible_text_keeps_what_scripts_need() -> None:
    assert wording.visible("می\u200cخواهم  \n👩\u200d👧") == "می\u200cخواهم 👩\u200d👧"
    assert wording.visible("a\u202eb\x00") == "a⟨U+202E⟩b⟨U+0000⟩"
    assert wording.visible("abcdef", 4) == "abc…"


# ---- numbers


def test_every_record_given_is_in_exactly_one_part(folder: Path) -> None:
    files = read_run(folder)
    counts = summary.count(files)
    selected, excluded = column(folder, "selected").astype(bool), column(folder, "excluded_by") != None  # noqa: E711
    assert (counts.chosen, counts.excluded, counts.rejected) == (selected.sum(), excluded.sum(), 6)
    assert counts.given == 300 + 6
    parts = report.fates.fates(files, counts)
    assert sum(part["number"] for part in parts) == counts.given
    assert sum(part["width"] for part in parts) == pytest.approx(100)
    reasons = dict(next(part["reasons"] for part in parts if part["kind"] == "excluded-fill"))
    assert reasons == {name: int((column(folder, "excluded_by") == name).sum()) for name in reasons}


def test_title_and_tiles_say_both_shares(folder: Path) -> None:
    page = page_of(folder)
    excluded = int((column(folder, "excluded_by") != None).sum())  # noqa: E711
    for words in ("ltd at 5%", "arXiv:2305.09246", "30", "10.0%", f"{30 / (300 - excluded):.1%} of"):
        assert words in page.text
    tokens = int(column(folder, "answer_tokens")[column(folder, "selected").astype(bool)].sum())
    assert f"{tokens:,} of {int(column(folder, 'answer_tokens').sum()):,} answer tokens" in page.text


def test_token_budget_states_its_deviation(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", run={"budget": {"asked": "600-tokens", "tokens": 600}})
    reached = int(column(folder, "answer_tokens")[column(folder, "selected").astype(bool)].sum())
    assert (
        f"600 were asked, so the choice is off by {reached - 600:,} ({reached / 600 - 1:+.2%})" in page_of(folder).text
    )


def test_groups_against_a_naive_twin(folder: Path) -> None:
    files = read_run(folder)
    source, selected = column(folder, "source"), column(folder, "selected").astype(bool)
    made = comparison.compare("source", *files.groups("source"), files.selected)
    for group in made.groups:
        pool, chosen = (source == group.name).sum(), ((source == group.name) & selected).sum()
        assert (group.pool, group.chosen) == (pool, chosen)
        assert group.ratio == pytest.approx((chosen / selected.sum()) / (pool / len(source)))
    assert [group.pool for group in made.groups] == sorted((group.pool for group in made.groups), reverse=True)
    assert sum(group.pool for group in made.groups) == len(source)


def test_surprise_is_that_of_a_hypergeometric_draw() -> None:
    stats = pytest.importorskip("scipy.stats")
    pool, chosen = np.array([70, 25, 5]), np.array([10, 8, 2])
    draw = [stats.hypergeom(100, size, 20) for size in pool]
    expected = [(count - each.mean()) / each.std() for count, each in zip(chosen, draw, strict=True)]
    np.testing.assert_allclose(comparison.surprises(pool, chosen), expected)


def test_summary_names_the_groups_beyond_chance() -> None:
    codes = np.repeat([0, 1, 2], [500, 300, 200])
    names, even = ["a", "b", "c"], np.arange(1000) % 10 == 0
    skewed, absent = np.arange(1000) >= 890, (np.arange(1000) >= 500) & even
    said = [summary._difference(comparison.compare("source", codes, names, mask))[0] for mask in (even, skewed, absent)]
    assert said[0].startswith("3 of 3 sources are represented among the chosen, none more or less often than chance")
    assert "“c” is 5.0 times as frequent as in the pool, “a” is absent." in said[1]
    assert "“b” is 2.0 times as frequent as in the pool, “a” is absent." in said[2]


def test_shortened_groups_add_up(folder: Path) -> None:
    files = read_run(folder)
    made = comparison.compare("cell", files.cells, [f"cell {i}" for i in range(24)], files.selected)
    short = comparison.shorten(made, 5)
    assert len(short.groups) == 5 and short.groups[-1].name == f"{len(made.groups) - 4} others"
    assert sum(group.pool for group in short.groups) == sum(group.pool for group in made.groups)
    assert sum(group.chosen_share for group in short.groups) == pytest.approx(1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_length_bins_part_the_rows_in_order(lengths: list[int]) -> None:
    values = np.array(lengths, dtype=np.float64)
    codes, names = comparison.length_bins(values)
    assert set(codes.tolist()) == set(range(len(names))) and len(names) <= 10
    spans = [(values[codes == i].min(), values[codes == i].max()) for i in range(len(names))]
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(spans))
    assert names == [f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}" for low, high in spans]


def test_length_bins_of_distinct_lengths_are_tenths() -> None:
    codes, names = comparison.length_bins(np.arange(1.0, 101.0))
    assert np.bincount(codes).tolist() == [10] * 10 and names[0] == "1–10"


def test_chance_above_against_all_pairs(rng: np.random.Generator) -> None:
    values, chosen = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.3
    values[::7] = np.nan
    a, b = values[chosen & ~np.isnan(values)], values[~chosen & ~np.isnan(values)]
    expected = np.mean([(x > y) + (x == y) / 2 for x in a for y in b])
    assert spreads.chance_above(values, chosen) == pytest.approx(expected)
    assert np.isnan(spreads.chance_above(values, np.zeros(60, dtype=bool)))


def test_costs_add_up_and_peak_is_the_largest(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "stages.jsonl").read_text().splitlines()]
    made = summary.cost(read_run(folder))
    assert made.seconds == pytest.approx(sum(line["seconds"] for line in lines))
    assert made.peak == 905 * 2**20
    assert made.bytes == sum(line["bytes"] for line in lines)
    text = page_of(folder).text
    assert "embedding" in text and "33 truncated" in text and "905.0 MiB" in text


# ---- charts


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    ticks = charts.nice(low, low + width)
    assert 1 <= len(ticks) <= 6
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)


def test_ticks_by_hand() -> None:
    assert charts.nice(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert [str(tick) for tick in charts.nice(-3, 3)] == ["-2.0", "0.0", "2.0"]


def test_histogram_is_of_both_and_needs_two_values(rng: np.random.Generator) -> None:
    values, chosen = rng.normal(size=500), np.arange(500) < 100
    chart = charts.histogram("x", values, chosen)
    assert chart is not None and chart.pool_area.count("H") == chart.chosen_area.count("H") == 15  # 1.5 sqrt(100)
    assert f"{np.median(values):.4g}" in chart.label and f"{np.median(values[:100]):.4g}" in chart.label
    assert charts.histogram("x", np.ones(500), chosen) is None
    assert charts.histogram("x", np.full(500, np.nan), chosen) is None


def test_gain_is_a_line_where_it_falls_and_dots_where_cells_take_turns() -> None:
    falling = charts.gain_curve(np.array([np.nan, 5, 4, 4, 1.0]))
    jumping = charts.gain_curve(np.array([5, 1, 4, 2.0]))
    assert falling is not None and falling.line and not falling.dots
    assert jumping is not None and not jumping.line and len(jumping.dots) == 4
    assert charts.gain_curve(np.array([np.nan, np.nan, 1.0])) is None
    assert charts.gain_curve(np.ones(9)) is None


def test_funnel_has_a_dot_for_every_cell(folder: Path) -> None:
    made = next(each for each in tables.comparisons(read_run(folder)) if each.kind == "cell")
    chart = charts.funnel(made)
    assert chart is not None and len(chart.dots) == len(made.groups)
    for x, y, _, _ in chart.dots:
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT and charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM


def test_silhouette_curve_marks_the_chosen_number(folder: Path) -> None:
    chart = charts.silhouette({"silhouette": SILHOUETTE})
    assert chart is not None and [tick.text for tick in chart.x_ticks] == ["8", "16", "24", "64"]
    assert [radius for _, _, radius, _ in chart.dots] == [3.0, 3.0, 5.5, 3.0]
    assert min(chart.dots, key=lambda dot: dot[1]) == chart.dots[2]
    assert (
        charts.silhouette({}) is None and charts.silhouette({"silhouette": {"clusters": [8], "corrected": [1]}}) is None
    )
    assert "How the number of cells was chosen" in page_of(folder).text


# ---- the map


def unpacked(data: dict[str, Any]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The map's data as `report.js` reads them."""
    blob, arrays, at = zlib.decompress(base64.b64decode(data["points"])), {}, 0
    for name, kind, length in data["arrays"]:
        arrays[name] = np.frombuffer(blob, dtype=np.dtype(kind), count=length, offset=at)
        at += arrays[name].nbytes
    assert at == len(blob)
    return arrays, zlib.decompress(base64.b64decode(data["texts"])).decode().split("\n")


def test_map_says_the_same_as_the_table(folder: Path) -> None:
    made = points.pack_map(read_run(folder), np.random.default_rng(0))
    assert made is not None
    arrays, texts = unpacked(made.data)
    rows = np.cumsum(arrays["row"])
    x, y = column(folder, "x"), column(folder, "y")
    assert rows.tolist() == [i for i in range(300) if x[i] is not None]
    assert (made.drawn, made.missing) == (len(rows), 300 - len(rows))
    assert (arrays["mark"] & 1).tolist() == column(folder, "selected")[rows].astype(int).tolist()
    ranks = column(folder, "rank")
    assert rows[arrays["order"]].tolist() == sorted(np.flatnonzero(column(folder, "selected")), key=lambda i: ranks[i])
    side = max(np.ptp(x[rows].astype(float)), np.ptp(y[rows].astype(float)))
    for packed, true in ((arrays["x"].astype(float), x[rows]), (-arrays["y"].astype(float), y[rows])):
        np.testing.assert_allclose(np.diff(packed) / 65_535 * side, np.diff(true.astype(float)), atol=side / 30_000)
    assert texts[5] == wording.visible(column(folder, "excerpt")[rows[5]], 200)
    by_name = {each["name"]: (arrays[f"c{i}"], each) for i, each in enumerate(made.data["columns"])}
    codes, meta = by_name["source"]
    assert [meta["names"][code] for code in codes] == column(folder, "source")[rows].tolist()
    assert by_name["cell"][0].tolist() == column(folder, "cell")[rows].tolist()
    codes, meta = by_name["quality"]
    exact = column(folder, "quality")[rows].astype(float)
    assert np.abs(np.array([float(meta["levels"][code]) for code in codes]) - exact).max() < 0.05


def test_levels_keep_the_order_and_mark_the_missing(rng: np.random.Generator) -> None:
    values = rng.normal(size=2_000)
    values[:10] = np.nan
    codes, stands = points.levels(values)
    assert (codes[:10] == 255).all() and len(stands) == 255
    order = np.argsort(values[10:])
    assert (np.diff(codes[10:][order].astype(int)) >= 0).all()
    assert np.bincount(codes[10:]).max() <= 9  # 1,990 values, 255 levels


def test_large_map_keeps_the_chosen_and_says_that_it_is_a_sample(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "MOST_POINTS", 120)
    made = points.pack_map(read_run(folder), np.random.default_rng(0))
    assert made is not None and made.drawn == 120 and made.left_out == 0
    arrays, _ = unpacked(made.data)
    rows = np.cumsum(arrays["row"])
    assert set(np.flatnonzero(column(folder, "selected"))) <= set(rows.tolist())
    assert (np.diff(rows) > 0).all()
    assert f"Drawn are 120 of {made.placed} rows: all the chosen, and a uniform sample" in page_of(folder).text


def test_map_of_too_many_chosen_samples_them_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points, "MOST_POINTS", 20)
    made = points.pack_map(read_run(folder), np.random.default_rng(0))
    assert made is not None and (made.drawn, made.left_out) == (20, 20)
    assert "a sample of the chosen" in page_of(folder).text


def test_texts_are_cut_until_they_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = read_run(folder)
    rows = np.arange(300)
    whole, length = points.pack_texts(files, rows)
    assert length == points.EXCERPT
    monkeypatch.setattr(points, "TEXT_BYTES", len(whole) // 2)
    packed, shorter = points.pack_texts(files, rows)
    assert len(packed) <= len(whole) // 2 and points.EXCERPT_LEAST < shorter < length
    lines = zlib.decompress(base64.b64decode(packed)).decode().split("\n")
    assert max(len(line) for line, chosen in zip(lines, files.selected, strict=True) if not chosen) == shorter


@pytest.mark.slow
def test_report_of_52k_rows_is_below_three_megabytes(tmp_path: Path, rng: np.random.Generator) -> None:
    words = np.array([f"{chr(97 + i % 26)}{i * 7919 % 99991}" for i in range(5_000)])
    texts = [" ".join(words[rng.integers(0, 5_000, 12)]) for _ in range(52_002)]
    records = [(text, texts[-i], f"source {i % 9}", "Latin") for i, text in enumerate(texts)]
    folder = make_run_folder(tmp_path / "run", 52_002, 0.05, records=records, scores=("a", "b", "c"))
    assert write_report(folder).stat().st_size < 3_000_000


# ---- examples


def test_examples_start_with_the_first_picks_and_repeat_no_row(folder: Path) -> None:
    shown = examples.pick_examples(read_run(folder), np.random.default_rng(0))
    rows = [each.row for each in shown]
    assert len(rows) == len(set(rows))
    ranks = column(folder, "rank")
    assert [ranks[row] for row in rows[: examples.FIRST]] == list(range(examples.FIRST))
    assert shown[0].badge == "1st pick" and shown[0].why[0].startswith("gain ")
    states = {each.row: each.state for each in shown}
    for row, state in states.items():
        true = "chosen" if ranks[row] is not None else "excluded" if column(folder, "excluded_by")[row] else "out"
        assert state == true
    assert {"chosen", "out", "excluded"} == set(states.values())


def test_high_scores_left_out_are_the_highest(folder: Path) -> None:
    shown = examples.pick_examples(read_run(folder), np.random.default_rng(0))
    quality, selected = column(folder, "quality"), column(folder, "selected")
    best = sorted((i for i in range(300) if quality[i] is not None and not selected[i]), key=lambda i: -quality[i])
    found = [each.row for each in shown if each.group == "Left out in spite of a high quality"]
    assert found == best[: examples.BY_SCORE]


def test_facts_of_a_row_are_its_own(folder: Path) -> None:
    shown = examples.pick_examples(read_run(folder), np.random.default_rng(0))
    each = next(each for each in shown if each.state == "out")
    row, cells, selected = each.row, column(folder, "cell"), column(folder, "selected")
    quality = column(folder, "quality")
    known = [value for value in quality if value is not None]
    below = np.mean([value < quality[row] for value in known])
    here = [i for i in range(300) if cells[i] == cells[row]]
    assert f"quality {wording.number(float(quality[row]))}, above {below:.0%} of the pool" in each.why
    assert f"cell {cells[row]}: {sum(selected[i] for i in here)} of its {len(here)} rows chosen" in each.why
    assert f"{column(folder, 'answer_tokens')[row]} tokens of answer" in each.why


@given(st.text(max_size=400), st.text(max_size=400))
def test_excerpts_come_apart_where_they_were_joined(prompt: str, answer: str) -> None:
    assume(examples.ARROW not in prompt or len(prompt) >= 160)  # nothing else says which arrow is meant
    assert examples.halves(f"{prompt[:160]} ⟶ {answer[:160]}") == (prompt[:160], answer[:160])


# ---- rounds


@pytest.fixture
def with_rounds(tmp_path: Path) -> Path:
    return add_rounds(make_run_folder(tmp_path / "rounds", 600, scores=("quality",)), 6)


def test_rounds_are_a_section_of_runs_that_have_them(with_rounds: Path, folder: Path) -> None:
    page, plain = page_of(with_rounds), page_of(folder)
    assert not page.open and "Round by round" in page.text and "Round by round" not in plain.text
    assert {"#rounds"} == {a["href"] for a in page.all("a")} - {a["href"] for a in plain.all("a")}
    assert "Held-out loss went from 2.9 before any tuning to 2.194 in round 6." in page.text
    assert "Training loss went from 2.1 in round 1 to 1.6 in round 6." in page.text
    assert f"/store/tunings/{6:032x}/checkpoints/0000040" in page.text
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("aria-label")
    digest = base64.b64encode(hashlib.sha256(page.inside["style"].encode()).digest()).decode()
    assert any(digest in str(each.get("content")) for each in page.all("meta"))


def test_weights_are_drawn_by_name_where_they_moved_most(with_rounds: Path) -> None:
    made = rounds.rounds_facts(read_run(with_rounds))
    assert made is not None
    shares = np.array(
        [pq.read_table(with_rounds / "rounds" / f"{n:03d}" / "cells.parquet")["weight"].to_numpy() for n in range(1, 7)]
    )
    moved = np.ptp(shares, axis=0)
    most = sorted(np.argsort(-moved)[:12], key=lambda cell: -shares[-1, cell])
    assert [each["name"] for each in made["weights"]["cells"]] == [f"cell {cell}" for cell in most]
    assert made["weights"]["others"] == shares.shape[1] - 12
    drawn = made["weights"]["chart"].lines
    assert [line.tone for line in drawn].count("rest") == shares.shape[1] - 12
    assert len({line.tone for line in drawn}) == 13
    for line, cell in zip(drawn[-12:], most, strict=True):
        heights = [y for _, y, _ in line.dots]
        assert np.argsort(heights).tolist() == np.argsort(-shares[:, cell], kind="stable").tolist()
        assert all(0 <= y <= made["weights"]["chart"].box.height for y in heights)
    rows = made["rows"]
    change = shares[3] - shares[2]
    assert rows[4]["more"][0] == f"cell {change.argmax()} {100 * change.max():+.1f}"
    assert rows[4]["less"][0] == f"cell {change.argmin()} {100 * change.min():+.1f}"
    assert rows[0]["heldout"] == "2.9000" and rows[0]["more"] == rows[1]["more"] == []


def test_what_entered_when_against_a_count_by_hand(with_rounds: Path) -> None:
    made = rounds.rounds_facts(read_run(with_rounds))
    assert made is not None and made["entered"]["what"] == "source"
    source, entered = column(with_rounds, "source"), column(with_rounds, "round")
    for group in made["entered"]["groups"]:
        pool = f"{(source == group['name']).mean():.1%}"
        by_round = [f"{(source[entered == n] == group['name']).mean():.1%}" for n in range(1, 7)]
        assert group["shares"] == [pool, *by_round]
    bars = made["entered"]["chart"].parts
    for x in {part.x for part in bars}:
        assert sum(part.height for part in bars if part.x == x) == pytest.approx(300 - 38 - 22, abs=0.5)


def test_rows_of_one_source_entered_by_cell_and_models_may_be_absent(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", records=[("ask", "answer", "one", "Latin")] * 300, cells=9)
    add_rounds(folder, 3, held_out=False)
    for place in (folder / "rounds").iterdir():
        said = (place / "round.toml").read_text().split("[model]")[0]
        (place / "round.toml").write_text(said)
    made = rounds.rounds_facts(read_run(folder))
    assert made is not None and made["entered"]["what"] == "cell" and made["losses"] is None
    assert [each["tone"] for each in made["entered"]["groups"]][-1] == "rest"
    assert "No model was tuned in these rounds" in page_of(folder).text


def test_hostile_names_of_cells_are_only_text(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", cells=len(HOSTILE))
    cells = int(max(cell for cell in column(folder, "cell") if cell is not None)) + 1
    page = page_of(add_rounds(folder, 2, names=HOSTILE[:cells]))
    assert not page.open and len(page.all("script")) == 2 and not page.all("img")
    assert wording.visible(HOSTILE[0], 40) in page.text


def test_the_map_is_coloured_by_round(with_rounds: Path) -> None:
    made = points.pack_map(read_run(with_rounds), np.random.default_rng(0))
    assert made is not None
    arrays, _ = unpacked(made.data)
    place, meta = next((i, each) for i, each in enumerate(made.data["columns"]) if each["name"] == "round")
    assert meta["names"] == [f"round {number}" for number in range(1, 7)]
    entered = column(with_rounds, "round")[np.cumsum(arrays["row"])]
    said = [255 if each is None else each - 1 for each in entered]
    assert arrays[f"c{place}"].tolist() == said


# ---- absent things


def test_absent_things_are_said(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", cells=None, mapped=False, scores=())
    for name in ("stages.jsonl", "rejected.jsonl"):
        (folder / name).unlink()
    page = page_of(folder)
    for words in ("No map:", "--embedder minilm", "No cells:", "No scores:", "No stages were written down"):
        assert words in page.text
    assert not page.all("canvas") and "script-data" not in page.inside


def test_bare_run_toml_and_one_row_make_a_page(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", 1, 1.0, cells=1)
    (folder / "run.toml").write_text("")
    page = page_of(folder)
    assert "1 of 1 row" in page.text and not page.open


def test_columns_without_values_are_said(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", cells=None)
    table = pq.read_table(folder / "selection.parquet")
    for name, kind in (("source", pa.string()), ("quality", pa.float32())):
        table = table.set_column(table.column_names.index(name), name, pa.nulls(300, kind))
    pq.write_table(table, folder / "selection.parquet")
    text = page_of(folder).text
    assert "No row of this pool has a source" in text and "quality: no row has a value." in text


def test_lengths_in_characters_are_called_so(folder: Path) -> None:
    table = pq.read_table(folder / "selection.parquet")
    pq.write_table(table.replace_schema_metadata({"length_unit": "characters"}), folder / "selection.parquet")
    text = page_of(folder).text
    assert "answer characters" in text and "answer tokens" not in text.replace("no answer tokens", "")


# ---- words


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (wording.share(1, 3), "33.3%"),
        (wording.share(1, 300), "0.33%"),
        (wording.share(1, 30_000), "0.003%"),
        (wording.share(9_998, 100_000), "10.0%"),
        (wording.share(3, 3), "100%"),
        (wording.share(0, 0), "–"),
        (wording.number(0.123456), "0.1235"),
        (wording.number(12_345.6), "12,346"),
        (wording.number(float("nan")), "–"),
        (wording.seconds(0.123), "0.12 s"),
        (wording.seconds(59.6), "1 min 0 s"),
        (wording.seconds(3_725), "1 h 2 min"),
        (wording.size(1536), "1.5 kiB"),
        (wording.size(12), "12 B"),
        (wording.place(1), "1st"),
        (wording.place(112), "112th"),
        (wording.place(1_003), "1,003rd"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
        (wording.plural(1, "row"), "1 row"),
        (wording.plural(2, "row has", "rows have"), "2 rows have"),
    ],
)
def test_numbers_in_words(made: str, said: str) -> None:
    assert made == said


def test_tables_of_run_toml_are_flat_and_short() -> None:
    rows = summary.flattened({"a": {"b": [1, 2], "c": {}}, "d": True, "e": 0.5, "f": list(range(500))})
    assert rows[:4] == [("a.b", "1, 2"), ("a.c", "none"), ("d", "true"), ("e", "0.5")]
    assert rows[4][1].endswith("… (500 values)") and len(rows[4][1]) < 200


def test_places_and_steps_are_marked_by_whole_numbers() -> None:
    from coretune.pages.charts import whole

    assert whole(3) == [1, 2, 3]
    assert whole(1) == [1]
    assert all(value == int(value) for count in range(1, 200) for value in whole(count))
