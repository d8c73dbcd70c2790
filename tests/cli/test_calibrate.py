"""`textsam calibrate`, on a model that sees grey levels."""

import io
import json
import zlib
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from textsam.cli import options
from textsam.cli.app import app
from textsam.errors import MissingExtraError
from textsam.values.calibration import Calibration
from textsam.values.judge import Candidate, Curve, PhraseAnswer, StrategyCurves
from textsam.values.rle import encode_mask

SIZE = (20, 30)
LABELS = ("cat", "dog", "bird", "cow")
OLD = StrategyCurves(
    presence=Curve(weights={"clip": 1.0}, bias=0.0), score=Curve(weights={"clip": 2.0}, bias=0.0)
)


def _half(left):
    mask = np.zeros(SIZE, bool)
    mask[:, :15] = left
    mask[:, 15:] = not left
    return encode_mask(mask)


class StandIn:
    """Photo n, of grey level n, shows the n-th label at its left and the next one at its right."""

    name = "stand-in"
    has_dense_text = True
    map_source = concept_model = detector = None
    clip = SimpleNamespace(encode_text=lambda names: torch.eye(len(names)))

    def __init__(self):
        self.calibration = Calibration(strategies={"rank": OLD})
        self.parts = SimpleNamespace(require_clip=lambda: self.clip, phrase_key=str.casefold)

    @contextmanager
    def open(self, image):
        level = int(image[0, 0, 0])
        here = {LABELS[level % 4]: _half(True), LABELS[(level + 1) % 4]: _half(False)}

        def segment(*, text, strategy):
            noise = np.random.default_rng(zlib.crc32(f"{level} {text}".encode())).normal()
            value = (1.5 if text in here else -1.5) + noise
            own = here.get(text, _half(True))
            mask = Candidate(rle=own, score=0.5, evidence={"map": value, "clip": value})
            evidence = {"peak": value, "clip": value}
            answer = PhraseAnswer(
                phrase=text, strategy=strategy, evidence=evidence, candidates=(mask,)
            )
            return SimpleNamespace(answers=(answer,))

        yield SimpleNamespace(segment=segment, size=SIZE)


def _write(path, count=24, *, exhaustive=True):
    rows = []
    for level in range(count):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (level,) * 3).save(file, "PNG")
        objects = [(LABELS[level % 4], _half(True)), (LABELS[(level + 1) % 4], _half(False))]
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "image_id": f"{level}",
                "height": SIZE[0],
                "width": SIZE[1],
                "exhaustive": exhaustive,
                "void": None,
                "objects": [
                    {"label": label, "kind": "thing", "rle": r.counts.decode(), "ignore": False}
                    for label, r in objects
                ],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def loaded(replace_model):
    names = []

    def load_model(name, **options):
        names.append(name)
        return StandIn()

    replace_model(load_model)
    return names


@pytest.fixture
def calibrate(tmp_path, monkeypatch, loaded):
    """Runs the command in a folder that holds `pets.parquet`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    _write(tmp_path / "pets.parquet")
    runner = CliRunner()

    def run(*arguments):
        return runner.invoke(app, ["calibrate", *map(str, arguments)])

    return run


def test_it_writes_a_file_and_shows_what_it_is_worth(calibrate, tmp_path):
    result = calibrate("pets.parquet")

    assert result.exit_code == 0, result.output
    fitted = Calibration.load(tmp_path / "calibration.json")
    assert fitted.strategies["auto"].presence.weights["peak"] > 0.5
    assert fitted.strategies["rank"] == OLD  # what the model had
    shown = " ".join(result.stdout.split())
    for word in (
        *(
            "auto: is the phrase in the photo?",
            "auto: masks",
            "AUROC",
            "siblings empty",
            "ECE",
            "24 48 48",
        ),
        *("with a presence of at least", "wrote calibration.json"),
        'TextSAM.from_pretrained("stand-in", calibration="calibration.json")',
    ):
        assert word in shown


def test_options_reach_the_fit(calibrate, tmp_path):
    result = calibrate(
        *("pets.parquet", "--strategy", "rank", "--strategy", "auto", "--photos", 20),
        *("--absent", 1, "--recall", 0.8, "--seed", 3, "--model", "mine", "-o", tmp_path),
    )

    assert result.exit_code == 0, result.output
    fitted = Calibration.load(tmp_path / "calibration.json")
    assert set(fitted.strategies["rank"].presence.weights) == {"clip", "peak"}
    for told in fitted.fitted_on.values():
        assert {key: told[key] for key in ("photos", "absent", "recall", "seed")} == {
            **{"photos": 20, "absent": 1},
            **{"recall": 0.8, "seed": 3},
        }
        assert told["figures"]["all"]["absent"] == 20


def test_levels_by_phrase_are_learnt_and_told(calibrate, tmp_path):
    result = calibrate("pets.parquet", "--per-phrase", "--absent", 2)
    assert result.exit_code == 0, result.output
    curves = Calibration.load(tmp_path / "calibration.json").strategies["auto"]
    assert set(curves.phrases) == set(LABELS)
    assert curves.of("cat").min_presence == curves.phrases["cat"].min_presence
    shown = " ".join(result.stdout.split())
    assert "auto: levels by phrase" in shown
    assert "F1 of instances on photos left out of the fit: 0." in shown
    few = calibrate("pets.parquet", "--per-phrase", "--photos", 5)
    if few.exit_code == 0:  # five photos may not show enough
        assert "the common levels stay for" in " ".join(few.stdout.split())
    assert calibrate("pets.parquet").exit_code == 0  # without the option no phrase has its own
    assert not Calibration.load(tmp_path / "calibration.json").strategies["auto"].phrases


def test_a_second_run_keeps_the_other_strategy(calibrate, tmp_path):
    assert calibrate("pets.parquet").exit_code == 0
    first = Calibration.load(tmp_path / "calibration.json")
    assert calibrate("pets.parquet", "--strategy", "rank").exit_code == 0
    second = Calibration.load(tmp_path / "calibration.json")

    assert second.strategies["auto"] == first.strategies["auto"]
    assert second.strategies["rank"] != OLD


def test_the_file_of_another_model_is_not_mixed_with_this_one(calibrate, tmp_path):
    path = tmp_path / "calibration.json"
    Calibration(strategies={"rank": OLD}, fitted_on={"rank": {"model": "sam-b"}}).save(path)
    before = path.read_bytes()

    result = calibrate("pets.parquet")

    assert result.exit_code == 1
    assert "has curves of sam-b, and this is stand-in; give another -o" in result.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.parquet"], "what it holds is not there. Say its kind"),
        (["pets.parquet", "pets.parquet"], "given twice"),
        (["pets.parquet", "-o", "no/c.json"], "Type: mkdir -p no"),
        (["pets.parquet", "-o", "c.png"], "wanted a folder, or a file that ends in .json"),
        (["pets.parquet", "--recall", "1.5"], "recall is 1.5; it is a share"),
        (["pets.parquet", "--strategy", "prompt"], "'prompt' cannot be calibrated"),
        (["some.parquet"], "is exhaustive, so nothing says what is absent"),
    ],
)
def test_errors_are_one_line_and_come_before_the_model(
    calibrate, loaded, arguments, message, tmp_path
):
    _write(tmp_path / "some.parquet", exhaustive=False)

    result = calibrate(*arguments)

    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert not loaded
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize("content", ["{}", json.dumps({"sheet": 1}), ""])
def test_a_file_that_is_something_else_is_not_overwritten(calibrate, tmp_path, content):
    path = tmp_path / "notes.json"
    path.write_text(content)

    result = calibrate("pets.parquet", "-o", "notes.json")

    assert result.exit_code == 1
    assert "is no calibration file" in result.stderr
    assert path.read_text() == content


def test_too_few_photos_are_told(calibrate, tmp_path):
    result = calibrate("pets.parquet", "--photos", 2)

    assert result.exit_code == 1
    assert "Ask more photos" in result.stderr
    assert not (tmp_path / "calibration.json").exists()


def test_without_data_it_is_a_wrong_command_line(calibrate):
    assert calibrate().exit_code == 2


def test_without_the_extra_it_says_what_to_type(calibrate, monkeypatch):
    def missing(module, extra):
        raise MissingExtraError(f'Type: pip install "textsam[{extra}]"')

    monkeypatch.setattr(options, "import_guest", missing)

    result = calibrate("pets.parquet")

    assert result.exit_code == 1
    assert 'pip install "textsam[train]"' in result.stderr
