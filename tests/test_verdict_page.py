"""The page of a comparison: what it says against the files that it says it of, hostile texts, and absent pieces."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coretune.errors import FolderError
from coretune.pages import verdict_browser as browser
from coretune.pages import verdict_choices as choices
from coretune.pages import verdict_costs as costs
from coretune.pages import verdict_curves as curves
from coretune.pages import verdict_forest as forest
from coretune.pages import verdict_tables as tables
from coretune.pages import verdict_words as words
from coretune.pages import wording
from coretune.pages.verdict_files import ComparisonFiles, read_comparison
from coretune.pages.verdict_items import group_scores, item_scores, run_values
from coretune.report import write_report
from tests.made_comparison import TASKS, Made, make_comparison
from tests.run_folders import HOSTILE
from tests.test_report import Page

CHEAP = Made(tasks=TASKS[:1], items=40, rows=200, budgets=("5%-tokens",), controls=("longest",), targeted=(), own=())


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_comparison(tmp_path_factory.mktemp("comparisons") / "compared")


@pytest.fixture
def folder(made_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_once, tmp_path / "compared"))


@pytest.fixture(scope="module")
def files(made_once: Path) -> ComparisonFiles:
    return read_comparison(made_once)


@pytest.fixture(scope="module")
def page(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(Path(shutil.copytree(made_once, tmp_path_factory.mktemp("page") / "compared")))


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text("utf-8"))


def verdict_of(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "verdict.json").read_text("utf-8"))
    return said


def change_verdict(folder: Path, **changed: Any) -> None:
    (folder / "verdict.json").write_text(json.dumps(verdict_of(folder) | changed), "utf-8")


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / name).to_pylist()
    return rows


# ---- the page as such


def test_page_loads_nothing_and_allows_only_its_own_style_and_script(page: Page) -> None:
    named = {"href", "src", "srcset", "data", "action", "poster", "xlink:href"}
    links = [value or "" for _, attributes in page.elements for key, value in attributes.items() if key in named]
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    assert "url(" not in page.inside["style"] and "@import" not in page.inside["style"]
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "http"):
        assert forbidden not in page.inside["script"]
    policy = next(each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';") and "unsafe" not in policy
    for part in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.inside[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy


def test_page_is_well_formed_and_labelled(page: Page) -> None:
    assert not page.open
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"]  # the policy would block them
        for key in ("aria-labelledby", "aria-describedby"):
            assert key not in attributes or attributes[key] in ids
        if (attributes.get("class") or "").split()[:1] in (["scroll"], ["list"]):
            assert attributes.get("tabindex") == "0" and attributes.get("role") == "region", tag  # reached by keyboard
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing.get("aria-label")
    assert all(each.get("scope") for each in page.all("th"))
    assert len(page.all("h1")) == 1 and page.all("html")[0]["lang"] == "en"


def test_same_folder_gives_the_same_bytes_and_leaves_nothing_else(folder: Path) -> None:
    before = {path.name for path in folder.iterdir()}
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}


def test_order_of_rows_in_the_files_changes_nothing_but_the_table_of_runs(folder: Path) -> None:
    first = page_of(folder)
    for name in ("items", "selections", "texts", "asked", "pool"):
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.take(np.random.default_rng(1).permutation(len(table))), folder / f"{name}.parquet")
    assert page_of(folder).text == first.text


# ---- what is said


def test_verdict_stands_at_the_top_in_words(page: Page, made_once: Path) -> None:
    said = verdict_of(made_once)
    start = page.text.index("Differences to random", page.text.index("The verdict in words"))
    top = page.text[page.text.index("The verdict in words") : start]
    assert said["sentence"] in top
    decided = [each for each in said["arms"] if not each["exploratory"]]
    assert len(decided) == 6
    for each in decided:
        assert (
            f"{each['arm']}{' targeted' if each['kind'] == 'targeted' else ''}: {each['words'].split(': ')[1]}" in top
        )
        assert each["next"] in top and each["unequal"] in top
    assert "What this does not speak for" in top and "pools unlike this one" in top
    assert "recost/wide could not be run: no knowledge was given" in top
    assert "2 items without a score in some run were left out for all" in top
    for words_ in ("±0.02", "6 of random", "150 items", "5%-tokens", "heldout_loss", "lower is better"):
        assert words_ in top


def test_many_findings_that_tell_nothing_are_folded_away() -> None:
    found = [{"verdict": each} for each in ("better", "cannot_tell", "worse", *["no_difference"] * 6)]
    assert words.folded(found[:8]) == (found[:8], [])
    told, rest = words.folded(found)
    assert told == [found[0], found[2]] and rest == [found[1], *found[3:]]


def test_smallest_detectable_is_held_against_the_margin(files: ComparisonFiles) -> None:
    def told(margin: float) -> str:
        tile = words.tiles(replace(files, primary=replace(files.primary, margin=margin)))[-1]
        return str(tile["lines"][-1])

    known = [each.smallest_detectable for each in files.declared]
    assert told(max(known)).startswith("all below the margin")
    assert told(min(known) / 2).startswith("all above the margin")
    assert told(float(np.median(known))) == "above the margin for 3 of 6 methods"
    assert told(math.nan) == "unknown: too few seeds"


def test_every_contrast_stands_in_the_table_once_with_its_numbers(page: Page, files: ComparisonFiles) -> None:
    groups = tables.contrasts(files)
    shown = [row for group in groups for row in group["rows"]]
    assert len(shown) == len(files.contrasts) == len([1 for _, each in page.elements if "data-also" in each]) - 90
    first = groups[0]["rows"]
    assert groups[0]["title"].startswith("heldout_loss: loss, nats a token; at 5%-tokens, random 2.3")
    kmq = next(each for each in files.contrasts if each.arm == "kmq" and not each.exploratory)
    row = next(each for each in first if each["arm"] == "kmq")
    assert row["difference"] == f"+{kmq.difference:.3f}" and row["interval"] == f"+{kmq.low:.3f} to +{kmq.high:.3f}"
    assert (row["seeds"], row["size"], row["verdict"]) == ("3 / 6", "150", "better")
    gains = [float(each["difference"].replace("−", "-")) for each in first]
    assert gains == sorted(gains, reverse=True)
    assert [each["holm"] != "–" for each in first] == [not each["exploratory"] for each in first]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (words.signed(0.0123, 3), "+0.012"),
        (words.signed(-0.0123, 3), "−0.012"),
        (words.signed(-0.0001, 3), "0.000"),
        (words.signed(math.nan, 3), "–"),
        (words.interval(-0.01, 0.2, 2), "−0.01 to +0.20"),
        (words.interval(math.nan, 0.2, 2), "unknown"),
        (words.p_value(0.00001), "<\u00a00.0001"),
        (words.p_value(0.0312), "0.031"),
        (words.p_value(1.0), "1"),
        (str(words.digits_for([0.013, 0.02])), "3"),
        (str(words.digits_for([130.0])), "0"),
        (str(words.digits_for([math.nan])), "3"),
        (words.plain(1234.5, 1), "1,234.5"),
    ],
)
def test_numbers_with_their_errors(made: str, said: str) -> None:
    assert made == said


# ---- forest


def test_forest_lies_right_for_better_and_says_the_same_in_words(files: ComparisonFiles) -> None:
    drawn = forest.forest(files)
    assert drawn is not None
    titles = [title for title, _, _ in drawn["groups"]]
    assert titles[0] == "Methods" and titles[1].startswith("Exploratory") and [g for *_, g in drawn["groups"]] == [0, 1]
    assert [row["arm"] for row in drawn["targeted"]] == ["less", "rds"]
    every = [row for _, rows, _ in drawn["groups"] for row in rows] + drawn["targeted"]
    assert {row["arm"] for row in every} == {each.arm for each in files.on_primary}
    by_arm = {each.arm: each for each in files.on_primary}
    for row in every:
        true = by_arm[row["arm"]]
        assert (row["at"] > drawn["zero"]) == (true.difference > 0)
        if not row["beyond"]:
            assert row["line"][0] <= row["at"] <= row["line"][1]
        if row["verdict"] == "better":
            assert row["line"][0] > drawn["zero"]
    margin = drawn["margin"]
    assert margin["start"] < drawn["zero"] < margin["start"] + margin["width"]
    assert drawn["zero"] - margin["start"] == pytest.approx(margin["width"] / 2, abs=0.01)


def test_far_controls_do_not_squeeze_the_methods(files: ComparisonFiles) -> None:
    drawn = forest.forest(files)
    assert drawn is not None
    rows = {row["arm"]: row for _, part, _ in drawn["groups"] for row in part}
    assert rows["full"]["beyond"] == 1 and rows["full"]["at"] == 100
    assert rows["untuned"]["beyond"] == -1 and rows["untuned"]["at"] == 0
    for row in drawn["groups"][0][1]:
        assert not row["beyond"] and not any(row["cut"])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.001, 2))
def test_axis_keeps_order_and_stays_inside(values: list[float], margin: float) -> None:
    one = {"arm": "a", "budget": "5%", "task": "t", "metric": "m", "verdict": "better", "exploratory": False}
    from coretune.pages.verdict_records import read_contrast, read_primary

    primary = read_primary(
        {"sentence": "", "primary": {"task": "t", "metric": "m", "budget": "5%", "higher_is_better": True}}
    )
    made = [read_contrast(one | {"difference": v, "interval": [v - margin, v + margin]}, "x", primary) for v in values]
    axis = forest.axis_of(made, margin)
    places = [axis.at(v) for v in sorted([*values, 0.0, margin, -margin])]
    assert places == sorted(places) and places[0] > 0 and places[-1] < 100


# ---- curves


def test_curves_have_every_arm_and_point(files: ComparisonFiles, made_once: Path) -> None:
    made = curves.curves(files)
    assert [each["primary"] for each in made] == [True, False, False]
    assert made[0]["way"] == "lower is better" and made[1]["way"] == "higher is better"
    whole = made[0]["all"]
    points = {
        (curve["arm"], point["budget"]): point["mean"]
        for curve in verdict_of(made_once)["curves"]
        if curve["task"] == "heldout_loss" and curve["arm"] != "full"
        for point in curve["points"]
    }
    assert {line.name for line in whole.lines} == {arm for arm, _ in points}
    assert sum(len(line.dots) for line in whole.lines) == len(points)
    assert [line.name for line in whole.lines if line.band] == ["random"]
    assert [name for name, _ in made[0]["small"]] == [line.name for line in whole.lines[1:]]
    for _, chart in made[0]["small"]:
        assert chart.lines[0].name == "random" and all(line.band for line in chart.lines)
        assert chart.y_ticks == made[0]["small"][0][1].y_ticks  # all share their axes
    assert {name for _, name in whole.levels} == {"untuned", "full pool"}
    row = next(row for row in made[0]["rows"] if row["arm"] == "kmq")
    assert row["means"] == [f"{points['kmq', budget]:.3f}" for budget in made[0]["budgets"]]


def test_lower_values_are_drawn_lower_and_more_tokens_further_right(files: ComparisonFiles) -> None:
    line = next(line for line in curves.curves(files)[0]["all"].lines if line.name == "random")
    xs, ys = [x for x, *_ in line.dots], [y for _, y, _ in line.dots]
    assert xs == sorted(xs) and ys == sorted(ys)  # loss falls, so y (downwards) grows
    plane = curves.Plane(curves.LARGE, (10, 1000), (0, 1))
    assert plane.x(100) == pytest.approx((plane.x(10) + plane.x(1000)) / 2, abs=0.1)


def test_level_far_away_is_told_in_words(folder: Path) -> None:
    said = verdict_of(folder)
    for each in said["arms"]:
        if each["arm"] == "untuned":
            each["value"] += 100
    change_verdict(folder, arms=said["arms"])
    made = curves.curves(read_comparison(folder))[0]
    assert [name for _, name in made["all"].levels] == ["full pool"] and made["beyond"][0].startswith("untuned 102.")
    assert "Outside the chart: untuned 102." in page_of(folder).text


@given(st.floats(1, 1e7), st.floats(1.01, 1e4))
def test_ticks_of_a_log_scale_are_few_and_inside(low: float, factor: float) -> None:
    ticks = curves.log_ticks(low, low * factor)
    assert 1 <= len(ticks) <= 5 and all(low * (1 - 1e-9) <= tick <= low * factor * (1 + 1e-9) for tick in ticks)


def test_one_budget_gives_points_and_says_so(tmp_path: Path) -> None:
    page = page_of(make_comparison(tmp_path / "one", CHEAP))
    assert "One budget was run, which gives points and no curves." in page.text and not page.open


# ---- choices


def test_overlaps_against_sets(files: ComparisonFiles, made_once: Path) -> None:
    rows = [row for row in rows_of(made_once, "selections.parquet") if row["budget"] == "5%-tokens"]

    def chosen(arm: str, seed: int) -> set[int]:
        return {row["row"] for row in rows if (row["arm"], row["seed"]) == (arm, seed)}

    def naive(one: str, other: str) -> float:
        pairs = [(s, s) for s in range(3)] if one != other else [(s, t) for s in range(3) for t in range(3) if s != t]
        found = []
        for s, t in pairs:
            a, b = chosen(one, s), chosen(other, t)
            found.append(len(a & b) / len(a | b))
        return float(np.mean(found))

    read = choices.read_choices(files)
    made = choices.overlaps(files, read)
    assert read is not None and made is not None and made["names"][0] == "random"
    for one, other in (("kmq", "tagcos"), ("tagcos", "tagcos/own-loop"), ("kmq", "kmq")):
        assert choices.mean_overlap(read, one, other) == pytest.approx(naive(one, other))
        line = made["lines"][made["names"].index(one)]
        cell = line["cells"][made["names"].index(other)]
        assert cell["text"] == f"{naive(one, other):.2f}" and cell["own"] == (one == other)


def test_overlap_by_chance_by_hand_and_by_drawing(rng: np.random.Generator) -> None:
    assert choices.by_chance(50, 50, 100) == pytest.approx(25 / 75)
    assert choices.by_chance(0, 0, 100) == choices.by_chance(5, 5, 0) == 0
    drawn = []
    for _ in range(400):
        a, b = (np.isin(np.arange(200), rng.choice(200, size, replace=False))[None] for size in (60, 80))
        drawn.append(float(choices.jaccard(a, b)[0, 0]))
    assert np.mean(drawn) == pytest.approx(choices.by_chance(60, 80, 200), abs=0.01)


def test_random_choices_overlap_as_told(files: ComparisonFiles, made_once: Path) -> None:
    made = choices.overlaps(files, choices.read_choices(files))
    pool = rows_of(made_once, "pool.parquet")
    free = sum(row["part"] == "train" and row["excluded_by"] is None for row in pool)
    size = round(0.05 * free)
    chance = choices.by_chance(size, size, free)
    assert (
        made is not None and f"of the {free} rows that could be chosen share {chance:.3f} by chance" in made["caption"]
    )


def test_what_only_one_method_picked_against_sets(files: ComparisonFiles, made_once: Path) -> None:
    methods = ("kmq", "tagcos", "recost", "ltd", "less", "rds")
    rows = [row for row in rows_of(made_once, "selections.parquet") if row["budget"] == "5%-tokens"]
    picked = {arm: {row["row"] for row in rows if row["arm"] == arm} for arm in methods}
    pool = {row["row"]: row for row in rows_of(made_once, "pool.parquet")}
    made = choices.only_one(files, choices.read_choices(files))
    assert [each["arm"] for each in made] == list(methods)
    for each in made:
        alone = picked[each["arm"]] - set().union(*(picked[arm] for arm in methods if arm != each["arm"]))
        assert each["said"].startswith(f"{len(alone)} of the {len(picked[each['arm']])} rows")
        for row in each["rows"]:
            number = int(row["where"].split(" ")[1])
            assert number in alone and pool[number]["excerpt"].startswith(row["prompt"][:40])
            times = {r["seed"] for r in rows if r["arm"] == each["arm"] and r["row"] == number}
            assert row["times"] == f"picked in {len(times)} of 3 seeds"


# ---- cost


def test_bill_adds_up(files: ComparisonFiles, made_once: Path) -> None:
    runs, made = rows_of(made_once, "runs.parquet"), costs.bill(files)
    for step, name in zip(made["steps"], ("select", "tune", "read"), strict=True):
        assert step["measured"] == pytest.approx(sum(run[f"{name}_seconds"] for run in runs))
        assert step["tokens"] == sum(run[f"{name}_tokens"] for run in runs)
    assert made["seconds"] == wording.seconds(sum(step["measured"] for step in made["steps"]))
    assert made["steps"][1]["back"] == made["steps"][1]["tokens"]
    assert len(made["arms"]) == len({(run["arm"], run["budget"]) for run in runs})
    assert made["predicted"] == wording.seconds(verdict_of(made_once)["bill"]["predicted"]["seconds"])


def test_gain_by_cost_says_where_and_from_when(files: ComparisonFiles, folder: Path) -> None:
    made = costs.gains(files)
    assert made is not None and made["drawing"] is not None
    rows = {row["arm"]: row for row in made["rows"]}
    spots = {spot.number: spot for spot in made["drawing"]["spots"]}
    line = next(
        each
        for each in verdict_of(folder)["bill"]["break_even"]
        if (each["arm"], each["budget"]) == ("kmq", "5%-tokens")
    )
    assert rows["kmq"]["share"] == wording.share(line["select_seconds"], line["full_seconds"])
    assert (rows["kmq"]["pays"], rows["longest"]["pays"]) == ("1st tuning", "at once")
    assert spots[rows["less"]["number"]].y < spots[rows["recost"]["number"]].y  # up is better
    assert spots[rows["longest"]["number"]].x < spots[rows["kmq"]["number"]].x
    said = verdict_of(folder)
    for each in said["bill"]["break_even"]:
        each["pays_from"] = {"kmq": 3, "tagcos": None}.get(each["arm"], 1)
    change_verdict(folder, bill=said["bill"])
    again = costs.gains(read_comparison(folder))
    assert again is not None
    assert {row["arm"]: row["pays"] for row in again["rows"]}["kmq"] == "3rd tuning"
    assert {row["arm"]: row["pays"] for row in again["rows"]}["tagcos"] == "never"


def test_spots_do_not_cover_each_other(files: ComparisonFiles) -> None:
    made = costs.gains(files)
    assert made is not None
    spots = made["drawing"]["spots"]
    for i, one in enumerate(spots):
        for other in spots[:i]:
            assert abs(one.x - other.x) >= costs.CLOSE or abs(one.y - other.y) >= costs.CLOSE


# ---- runs, groups, items


def test_values_of_runs_are_means_of_their_items(files: ComparisonFiles, made_once: Path, page: Page) -> None:
    scores: dict[Any, list[float]] = {}
    for row in rows_of(made_once, "items.parquet"):
        key = (row["task"], row["metric"]), (row["arm"], row["budget"], row["seed"])
        scores.setdefault(key, []).append(row["score"])
    found = run_values(files)
    assert {(task, run) for task, runs in found.items() for run in runs} == set(scores)
    for (task, run), values in scores.items():
        assert found[task][run] == pytest.approx(np.mean(values))
    table = tables.runs(files, found)
    assert len(table["rows"]) == len(files.runs) == 111 and table["left_out"] == 0
    row = next(row for row in table["rows"] if (row["arm"], row["budget"], row["seed"]) == ("ltd", "1%-tokens", "2"))
    mean = np.mean(scores[("heldout_loss", "loss"), ("ltd", "1%-tokens", 2)])
    assert row["scores"][0] == f"{mean:.4f}" and f"{mean:.4f}" in page.text


def test_differences_by_group_against_a_naive_twin(files: ComparisonFiles, made_once: Path) -> None:
    rows = [
        row
        for row in rows_of(made_once, "items.parquet")
        if (row["task"], row["metric"], row["budget"]) == ("heldout_loss", "loss", "5%-tokens")
    ]

    def naive(arm: str, group: str) -> float:
        return float(np.mean([row["score"] for row in rows if (row["arm"], row["group"]) == (arm, group)]))

    made = tables.by_group(files)
    assert made is not None and [each["name"] for each in made["groups"]] == ["alpaca", "dolly", "gsm8k"]
    assert [each["size"] for each in made["groups"]] == ["50", "50", "50"]
    kmq = next(row for row in made["rows"] if row["arm"] == "kmq")
    for group, cell in zip(("alpaca", "dolly", "gsm8k"), kmq["cells"], strict=True):
        shown = float(cell["difference"].replace("−", "-"))
        assert shown == pytest.approx(naive("random", group) - naive("kmq", group), abs=1e-4)
    assert all(len(each.seeds["random"]) == 6 for each in group_scores(files))


def test_items_at_the_ends_are_those_of_the_largest_differences(files: ComparisonFiles, made_once: Path) -> None:
    rows = [
        row
        for row in rows_of(made_once, "items.parquet")
        if (row["task"], row["metric"], row["budget"]) == ("heldout_loss", "loss", "5%-tokens")
    ]

    def means(arm: str) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for row in rows:
            if row["arm"] == arm:
                found.setdefault(row["item"], []).append(row["score"])
        return {item: float(np.mean(values)) for item, values in found.items()}

    ltd, random = means("ltd"), means("random")
    apart = {item: random[item] - ltd[item] for item in ltd}
    order = sorted(apart, key=lambda item: -apart[item])
    made = browser.browser(files)
    assert made is not None and made["size"] == "150"
    shown = next(each for each in made["arms"] if each["arm"] == "ltd")
    assert [row["item"] for row in shown["rows"]] == [*order[:6], *order[::-1][:6]]
    better = sum(value > 0 for value in apart.values())
    assert f"better than random on {wording.share(better, 150)}" in shown["said"]
    first = shown["rows"][0]["texts"]
    assert first["arm"].startswith(f"ltd wrote of {order[0]} (seed 0)")
    assert first["random"].startswith(f"random wrote of {order[0]} (seed 0)")


def test_items_are_shown_with_what_they_ask(files: ComparisonFiles, page: Page) -> None:
    shown = browser.browser(files)
    assert shown is not None
    for row in (row for arm in shown["arms"] for row in arm["rows"]):
        assert (row["prompt"], row["answer"]) == (f"What of {row['item']}?", f"All of {row['item']}")
    assert f"What of {shown['arms'][0]['rows'][0]['item']}?" in page.text


def test_items_that_an_arm_lacks_are_left_out_for_all(folder: Path) -> None:
    table = pq.read_table(folder / "items.parquet")
    gone = np.array([(a, i) == ("kmq", "item-00003") for a, i in zip(*(table[c].to_pylist() for c in ("arm", "item")))])
    pq.write_table(table.filter(~gone), folder / "items.parquet")
    scores = item_scores(read_comparison(folder))
    assert scores is not None and len(scores.ids) == 149 and "item-00003" not in scores.ids
    assert all(len(each) == 149 for each in scores.means.values())


def test_plan_leakage_rates_and_sizes_are_told(page: Page) -> None:
    for told in (
        "exact_match:trec 1 of 600 0.17% 1 of 150 0.67% 1 row by prompt, 1 item by prompt",
        "coretune compare pool.jsonl --methods kmq,tagcos,recost,ltd",
        "Learning rates tried on random",
        "random not identified 3,100 2,100 to 5,200 34.1% no part 3 sizes were measured",
        "kmq 3,100 3,100 2,100 to 5,200 34.1% 5,000",
        "kmq 366 842 366 to 1,000 ×2.30 cannot tell",
        "recost 366 less than any budget ? to 1,000 – worse",
        "kmq.quality answer_loss",
    ):
        assert "".join(told.split()) in "".join(page.text.split()), told  # cells of a table stand without a space


# ---- hostile and missing things


def test_hostile_text_is_only_ever_text(tmp_path: Path) -> None:
    plain = page_of(make_comparison(tmp_path / "plain", replace(CHEAP, methods=("kmq", "ltd"))))
    task = replace(TASKS[0], name=HOSTILE[1], metric=HOSTILE[2], unit=HOSTILE[4], groups=(HOSTILE[0], "b"))
    hostile = replace(CHEAP, methods=("kmq", HOSTILE[0]), tasks=(task,), hostile=HOSTILE, budgets=("5%-tokens",))
    folder = make_comparison(tmp_path / "hostile", hostile)
    page = page_of(folder)
    assert not page.open
    assert {tag for tag, _ in page.elements} - {tag for tag, _ in plain.elements} <= {"details", "summary"}
    assert len(page.all("script")) == 1 and not page.all("img")
    assert page.inside["script"] == plain.inside["script"] and page.inside["style"] == plain.inside["style"]
    for text in HOSTILE:
        assert wording.visible(text, 40).rstrip("…") in page.text
    for letter in "\x00\x07\x1b\u202e\u2066\u2028":
        assert letter not in (folder / "report.html").read_text("utf-8")
    assert (folder / "report.html").stat().st_size < 600_000


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("runs.parquet", "No runs were written down: the folder has no runs.parquet."),
        ("items.parquet", "No items: the folder has no items.parquet"),
        ("selections.parquet", "No overlaps: choices of fewer than two arms"),
        ("pool.parquet", "(empty prompt)"),
        ("texts.parquet", "No model's text is kept"),
        ("asked.parquet", "The folder keeps no questions"),
        ("stages.jsonl", "No stages were written down"),
    ],
)
def test_a_missing_file_is_said_and_the_rest_is_shown(folder: Path, missing: str, said: str) -> None:
    (folder / missing).unlink()
    page = page_of(folder)
    assert said in page.text and not page.open and "Differences to random" in page.text


def test_a_bare_verdict_makes_a_page(folder: Path) -> None:
    said = verdict_of(folder)
    for name in (
        "runs.parquet",
        "items.parquet",
        "selections.parquet",
        "pool.parquet",
        "texts.parquet",
        "asked.parquet",
    ):
        (folder / name).unlink()
    (folder / "verdict.json").write_text(json.dumps({**{k: said[k] for k in ("primary", "sentence")}, "arms": []}))
    (folder / "compare.toml").write_text("")
    page = page_of(folder)
    for told in ("No method was compared with random", "No arm was read on the primary task", "No curves:"):
        assert told in page.text
    assert not page.open


def test_numbers_that_are_unknown_are_dashes(folder: Path) -> None:
    arms = verdict_of(folder)["arms"]
    unknown = ("interval", "p", "p_holm", "smallest_detectable", "stderr", "df")
    change_verdict(folder, arms=[{key: None if key in unknown else value for key, value in a.items()} for a in arms])
    page = page_of(folder)
    assert "unknown: too few seeds" in page.text and "nan" not in page.text.lower().split()


def test_a_stage_line_that_was_cut_off_is_counted(folder: Path) -> None:
    with (folder / "stages.jsonl").open("a") as lines:
        lines.write('{"stage": "tor')
    assert "1 lines of stages.jsonl could not be read" in page_of(folder).text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no verdict.json and so is no finished comparison"),
        ("{", "cannot be read"),
        ("\x00\x01", "cannot be read"),
        ("[1, 2]", "holds a list, and should hold a table"),
        ("{}", "'sentence' is absent"),
        ('{"sentence": "x", "primary": 3, "arms": []}', "'primary' is a int, and should be a dict"),
        ('{"sentence": "x", "primary": {"task": "t", "metric": "m"}, "arms": []}', "primary: 'budget' is absent"),
    ],
)
def test_a_verdict_that_is_none_is_refused_by_name(folder: Path, content: str | None, said: str) -> None:
    (folder / "verdict.json").unlink()
    if content is not None:
        (folder / "verdict.json").write_text(content)
    with pytest.raises(FolderError, match=said):
        write_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"verdict": "splendid"}, r"arms\[0\] has the verdict 'splendid'; there are better, worse"),
        ({"arm": None}, r"arms\[0\]: 'arm' is a NoneType, and should be a str"),
    ],
)
def test_an_arm_that_is_none_is_refused_by_place(folder: Path, changed: dict[str, Any], said: str) -> None:
    arms = verdict_of(folder)["arms"]
    change_verdict(folder, arms=[arms[0] | changed, *arms[1:]])
    with pytest.raises(FolderError, match=said):
        write_report(folder)


@pytest.mark.parametrize(
    "name", ["compare.toml", "runs.parquet", "items.parquet", "selections.parquet", "texts.parquet", "asked.parquet"]
)
def test_unreadable_files_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\xff\xfe not a table")
    with pytest.raises(FolderError, match=f"{name} cannot be read"):
        write_report(folder)


def test_two_seeds_and_controls_alone_make_a_page(tmp_path: Path) -> None:
    page = page_of(make_comparison(tmp_path / "two", replace(CHEAP, methods=(), seeds=2)))
    assert "all arms are controls" in page.text and not page.open
    assert "Exploratory" in page.text


# ---- size


def many() -> Iterator[tuple[str, Made]]:
    """Comparisons that are large in one way each."""
    methods = tuple(f"method-{i}" for i in range(16))
    yield "runs", replace(Made(), methods=methods, seeds=5, items=20, rows=400)
    yield "items", replace(CHEAP, methods=("kmq", "ltd"), items=100_000, seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in many()])
def test_large_comparisons_make_pages_below_three_megabytes(tmp_path: Path, name: str) -> None:
    folder = make_comparison(tmp_path / name, dict(many())[name])
    assert write_report(folder).stat().st_size < 3_000_000
    if name == "runs":
        assert len(rows_of(folder, "runs.parquet")) > 300


def test_the_full_pools_estimate_is_marked_as_one(folder: Path) -> None:
    assert "Estimated, not measured" not in page_of(folder).text
    said = {"value": 1.25, "low": 1.125, "high": 1.5, "unit": "nats", "size": 120_000, "reasons": ["<b>too far</b>"]}
    change_verdict(folder, full_estimate=said)
    told = page_of(folder).text
    assert "points to 1.25 [1.125, 1.5] nats at its 120,000 answer tokens; <b>too far</b>." in told
    change_verdict(folder, full_estimate={**said, "low": None, "reasons": []})
    assert "points to 1.25 nats at its 120,000 answer tokens." in page_of(folder).text
