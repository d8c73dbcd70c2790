import importlib.metadata
import json
import os
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import textsam
from textsam import read_set
from textsam.cli import options
from textsam.cli.app import EXAMPLES, app
from textsam.cli.doctor import Finding, examine
from textsam.errors import PromptError, WeightsError
from textsam.results.segmentation import Segmentation
from textsam.values.judge import Candidate, Levels, PhraseAnswer
from textsam.values.rle import encode_mask
from textsam.weights import info as model_info

ROOT = Path(__file__).parents[2]


class StandIn:
    """Half of every photo is a wheel; there never is a cat."""

    name = "stand-in"

    def __init__(self):
        self.prompts = []

    def segment(self, image, *, text=None, points=None, **prompt):
        self.prompts.append({"text": text, "points": points, **prompt})
        if points and points[0][0] > image.shape[1]:
            raise PromptError(f"point {points[0]} lies outside the image")
        found = [phrase for phrase in text or [None] if phrase != "cat"]
        masks = np.zeros((len(found), *image.shape[:2]), bool)
        masks[:, :, : image.shape[1] // 2] = True
        return Segmentation.from_masks(
            masks,
            scores=[0.9375] * len(found),
            labels=found,
            presence={phrase: 0.03 if phrase == "cat" else 0.9 for phrase in text or []},
        )


@pytest.fixture
def model(replace_model):
    model = StandIn()
    model.loaded = []

    def load_model(name, **options):
        model.loaded.append({"name": name, **options})
        if name == "broken":
            raise WeightsError("no weights called 'broken'\n  try tiny")
        return model

    replace_model(load_model)
    return model


@pytest.fixture
def textsam_command(tmp_path, monkeypatch, model):
    """Runs a command line in an empty folder that holds one photo, `street.jpg`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    Image.new("RGB", (40, 30), "grey").save("street.jpg")
    runner = CliRunner()

    def run(*arguments):
        return runner.invoke(app, [str(argument) for argument in arguments])

    return run


def test_one_photo(textsam_command, model):
    result = textsam_command(
        "segment", "street.jpg", "-t", "wheel", "-t", "cat", "-o", "out/wheels.png"
    )
    assert result.exit_code == 0, result.output
    for word in (
        "wheel",
        "0.94",
        "0 0 20 30",
        "600 px (50.0%)",
        "no 'cat' in the photo (presence 0.03)",
    ):
        assert word in result.stdout
    assert "wrote out/wheels.png" in result.stdout
    assert Image.open("out/wheels.png").size == (40, 30)
    assert model.loaded == [
        {"name": "tiny", **dict.fromkeys(("clip", "detector", "device", "dtype", "calibration"))}
        | {"backend": "torch"}
    ]


@pytest.mark.parametrize(
    ("typed", "threshold"),
    [
        (["0.3"], 0.3),
        (["a wheel=0.3"], {"a wheel": 0.3}),
        (["0.5", "Text=0.2"], {"wheel": 0.5, "Text": 0.2}),  # --text is an option, too
        (["=0.3"], 0.3),
    ],
)
def test_thresholds_of_phrases_reach_the_model(textsam_command, model, typed, threshold):
    options = [word for text in typed for word in ("--threshold", text)]
    result = textsam_command("segment", "street.jpg", "-t", "wheel", "-t", "text", *options)
    assert result.exit_code == 0, result.output
    assert model.prompts[0]["threshold"] == threshold


def test_all_prompts_reach_the_model(textsam_command, model):
    result = textsam_command(
        *("segment", "street.jpg", "-t", "wheel", "-p", "4,2.5", "-p", "7,8,0", "-b", "0,0,9,9"),
        *(
            "--strategy",
            "prompt",
            "--threshold",
            "0.3",
            "--model",
            "m",
            "--clip",
            "c",
            "--detector",
            "d",
            "--device",
            "cpu",
            "--dtype",
            "bfloat16",
            "--calibration",
            "k.json",
        ),
    )
    assert result.exit_code == 0, result.output
    assert model.prompts == [
        {"text": ["wheel"], "points": [[4, 2.5], [7, 8]], "labels": [1, 0], "box": [0, 0, 9, 9]}
        | {"boxes": None, "strategy": "prompt", "threshold": 0.3, "overlap": "allow"}
        | {"exclude": None, "background": None}
    ]
    assert model.loaded == [
        {"name": "m", "clip": "c", "detector": "d", "device": "cpu", "dtype": "bfloat16"}
        | {"calibration": Path("k.json"), "backend": "torch"}
    ]


def test_phrases_that_hold_more_than_a_name_are_noted(textsam_command):
    result = textsam_command(
        "segment", "street.jpg", "-t", "dog and cat", "-t", "wheel", "-o", "x.json"
    )
    assert result.exit_code == 0
    assert 'note: "dog and cat"' in result.stderr and '-t "dog" -t "cat"' in result.stderr
    assert "wheel" not in result.stderr


def test_names_of_files(textsam_command):
    textsam_command("segment", "street.jpg", "-t", "garage door/left")
    assert Path("street_garage-door-left.png").is_file()
    textsam_command("segment", "street.jpg", "-t", "wheel", "-o", "folder", "--format", "json")
    assert Segmentation.load("folder/street.json").labels == ["wheel"]
    textsam_command("segment", "street.jpg", "-p", "1,1", "-o", "cut.webp", "--kind", "cutout")
    assert Image.open("cut.webp").mode == "RGBA"


def test_json_of_one_photo(textsam_command):
    result = textsam_command("segment", "street.jpg", "-t", "wheel", "--json")
    told = json.loads(result.stdout)
    assert told["source"] == "street.jpg"
    assert told["output"] is None
    assert told["masks"][0]["box"] == [0, 0, 20, 30]
    assert os.listdir() == ["street.jpg"]
    told = json.loads(
        textsam_command("segment", "street.jpg", "-t", "x", "--json", "-o", "a.npz").stdout
    )
    assert told["output"] == "a.npz"
    assert len(Segmentation.load("a.npz")) == 1


@pytest.mark.parametrize("words", [["street.jpg", "garage door"], ["garage door", "street.jpg"]])
def test_a_word_that_is_no_file_is_the_phrase(textsam_command, model, words):
    result = textsam_command("segment", *words, "-o", "a.json")
    assert result.exit_code == 0, result.output
    assert "there is no file 'garage door'; read as -t \"garage door\"" in result.stderr
    assert model.prompts[-1]["text"] == ["garage door"]


def test_patterns_are_expanded(textsam_command):
    make_folder()
    result = textsam_command("segment", "photos/*.jpg", "photos/**/*.png", "-t", "x", "-o", "out")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path("out").glob("*.png")} == {"a.png", "b.png", "c.png"}
    # One match is one photo.
    textsam_command("segment", "street*", "-t", "x", "-o", "one.json")
    assert Path("one.json").is_file()


@settings(deadline=None, max_examples=30)
@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_names_of_files_are_short_and_their_own(first, second):
    names = [options.choose_target("photo.jpg", None, None, [text]) for text in (first, second)]
    for name in names:
        assert len(name.name.encode()) <= 180
        assert options.choose_target("photo.jpg", name, None, []) == name
    long = [options.choose_target("p.jpg", None, None, [text * 400]) for text in ("é", "e")]
    assert long[0] != long[1]


def test_a_long_phrase(textsam_command):
    result = textsam_command("segment", "street.jpg", "-t", "very " * 50 + "wheel")
    assert result.exit_code == 0, result.output
    (name,) = (path.name for path in Path().glob("street_very*.png"))
    textsam_command("segment", "street.jpg", "-t", "very " * 50 + "wheel")
    assert [path.name for path in Path().glob("street_very*.png")] == [name]


def test_one_rule_for_names_of_output(textsam_command):
    """A dot and letters name a file; any other name, or that of a folder, a folder."""
    make_folder()
    Path("old.png").mkdir()
    for name in ("results.v2", "results.2026", "masks", "old.png"):
        for source in ("street.jpg", "photos"):
            result = textsam_command("segment", source, "-t", "x", "-o", name)
            assert result.exit_code == 0, result.output
        assert Path(name, "street.png").is_file() and Path(name, "a.png").is_file()


def test_photos_are_read_as_chosen(textsam_command, model):
    seen = []
    ask = model.segment
    model.segment = lambda image, **rest: seen.append(image[0, 0].tolist()) or ask(image, **rest)
    pixels = np.full((30, 40, 4), (10, 20, 30, 0), np.uint8)
    Image.fromarray(pixels).save("clear.png")
    Path("clear").mkdir()
    Image.fromarray(pixels).save("clear/a.png")
    Image.fromarray(pixels).save("clear/b.png")
    result = textsam_command("segment", "clear.png", "-t", "x", "-o", "a.json")
    assert result.stderr.count("note: the photo is transparent everywhere") == 1
    for options_, colour in (
        (["--alpha", "ignore"], [10, 20, 30]),
        (["--alpha", "black"], [0, 0, 0]),
        (["--bands", "3,2,1"], [30, 20, 10]),
        (["--bands", "2", "--white", "40"], [128] * 3),
    ):
        textsam_command("segment", "clear.png", "-t", "x", "-o", "a.json", *options_)
        assert seen[-1] == colour
        textsam_command("segment", "clear", "-t", "x", "-o", "out", *options_)
        assert seen[-2:] == [colour, colour]
    result = textsam_command("segment", "clear", "-t", "x", "-o", "out2")
    assert result.stderr.count("note:") == 1  # once for all photos


def test_what_a_folder_leaves_out_is_counted(textsam_command):
    make_folder()
    Path("photos/a.CR2").touch()
    Path("photos/a.xmp").touch()
    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out")
    assert "left out, as they are not read: 1 .cr2" in result.stdout


def test_a_photo_at_an_address(textsam_command):
    path = Path("street.jpg").resolve()
    result = textsam_command("segment", f"file://{path}", "-t", "wheel")
    assert result.exit_code == 0, result.output
    assert Path("street_wheel.png").is_file()


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_the_help_are_right(textsam_command, line):
    name, *words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.commands[name]
    # Parsed as a command line is, without running it.
    command.make_context(name, words, parent=group.make_context("textsam", [name]))
    shown = " ".join(textsam_command(name, "--help").stdout.split())
    assert line in shown


def test_options_are_grouped(textsam_command):
    for name, panels in (
        ("segment", ("What to find", "Results", "Model", "Reading photos")),
        ("everything", ("What to find", "Results", "Model", "Reading photos")),
        ("search", ("What to find", "Which masks count", "Results", "Model")),
    ):
        shown = textsam_command(name, "--help").stdout
        assert all(panel in shown for panel in panels)
        # Nothing is left but --help.
        rest = shown.partition(" Options ")[2].partition("╰")[0]
        assert rest.count("--") == 1


class Explains(StandIn):
    """As `StandIn`, and gives its reasons; a cat is seen only with a low threshold."""

    def segment(self, image, *, text=None, threshold=None, **prompt):
        plain = super().segment(image, text=text, threshold=threshold, **prompt)
        level = 0.5 if threshold is None else threshold
        everything = encode_mask(np.ones(plain.size, bool))
        answers = []
        for phrase in text:
            chance = plain.presence[phrase]
            closed = {}
            if chance < level:
                closed = {"gate": "presence", "reason": f"presence {chance:.2f} < {level:.2f}"}
            answers.append(
                PhraseAnswer(
                    phrase=phrase,
                    strategy="auto",
                    presence=chance,
                    levels=Levels(presence=level, score=level),
                    candidates=() if closed else (Candidate(rle=everything, score=0.9375),),
                    **closed,
                )
            )
        return Segmentation(
            plain.size,
            plain.rles,
            scores=plain.scores,
            labels=plain.labels,
            presence=plain.presence,
            answers=answers,
        )


@pytest.fixture
def explains(replace_model):
    explains = Explains()
    replace_model(lambda *_, **__: explains)
    return explains


def test_what_phrases_compete_with_reaches_the_model(textsam_command, model):
    options = (
        *("--exclude", "steering wheel", "--exclude", "clock"),
        *("--background", "street", "--strategy", "rank", "--overlap", "exclusive"),
    )
    expected = {
        "exclude": ["steering wheel", "clock"],
        "background": ["street"],
        "strategy": "rank",
        "overlap": "exclusive",
    }
    make_folder()
    for arguments in (("street.jpg",), ("photos", "-o", "out")):
        result = textsam_command("segment", *arguments, "-t", "wheel", *options)
        assert result.exit_code == 0, result.output
        assert expected.items() <= model.prompts[-1].items()
    assert len(model.prompts) == 4


def test_an_empty_answer_names_its_gate(textsam_command, explains):
    result = textsam_command("segment", "street.jpg", "-t", "wheel", "-t", "cat")
    assert "'cat': nothing, the presence gate closed" in result.stdout
    assert "presence 0.03 < 0.50, 0.47 too low" in result.stdout
    assert "type --threshold 0.03" in result.stdout
    assert len(explains.prompts) == 1


def test_explain(textsam_command, explains):
    arguments = ("segment", "street.jpg", "-t", "wheel", "-t", "cat", "-o", "a.png")
    result = textsam_command(*arguments, "--explain", "why/not.png")
    assert result.exit_code == 0, result.output
    for word in ("passed", "mask 1", "presence", "wrote a.png", "wrote why/not.png"):
        assert word in result.stdout
    assert Image.open("why/not.png").width > 1000
    # What was refused at the door is asked again with the door open, the rest is not.
    assert [prompt["text"] for prompt in explains.prompts] == [["wheel", "cat"], ["cat"]]
    result = textsam_command(*arguments, "--explain", "why.json", "--json")
    assert json.loads(result.stdout)["explanation"] == "why.json"
    why = json.loads(Path("why.json").read_text())
    assert [phrase["gate"] for phrase in why["phrases"]] == [None, "presence"]


def test_explain_asks_no_more_than_it_must(textsam_command, explains):
    result = textsam_command("segment", "street.jpg", "-t", "wheel", "--explain", "a.json")
    assert result.exit_code == 0, result.output
    assert len(explains.prompts) == 1


def make_folder():
    Path("photos/sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "sub/c.png"):
        Image.new("RGB", (20, 20)).save(f"photos/{name}")


def test_a_folder(textsam_command):
    make_folder()
    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out")
    assert result.exit_code == 0, result.output
    assert "3 photos: 3 done; in out" in result.stdout
    assert Path("out/sub/c.png").is_file()
    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out")
    assert "0 done, 3 kept from an earlier run" in result.stdout
    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out", "--overwrite")
    assert "3 done" in result.stdout


def test_a_folder_with_a_bad_photo(textsam_command):
    make_folder()
    Path("photos/bad[1].jpg").write_text("no photo")
    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out")
    assert result.exit_code == 1
    assert "failed photos/bad[1].jpg" in result.stderr
    assert "4 photos: 3 done, 1 failed; in out" in result.stdout
    assert "out/errors.jsonl" in result.stdout

    result = textsam_command("segment", "photos", "-t", "wheel", "-o", "out", "--json")
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["status"] for line in told] == ["kept", "kept", "failed", "kept"]
    assert told[0]["masks"] == {"wheel": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["street.jpg"], "no prompt; type for example: textsam segment street.jpg -t wheel"),
        (["street.jpg", "red", "boat"], '-t "red boat" for one phrase, or -t "red" -t "boat"'),
        (["boat", "-t", "x"], "there is no file 'boat'"),
        (["*.gif", "-t", "x"], "no photos match '\\*.gif'"),
        (["street.jpg", "s3://b/a.jpg", "-t", "x", "-o", "out"], "is an address: give it alone"),
        (["street.jpg", "street.jpg", "-t", "x", "-o", "a.png"], "Type: -o a$"),
        (["street.jpg", "-t", "x", "-o", "street.final"], "wanted a folder, or a file"),
        (["street.jpg", "-t", "x", "--bands", "3,2"], "--bands 3,2: wanted one number or three"),
        (["street.jpg", "-t", "x", "--bands", "0,1,2"], "counted from 1"),
        (["street.jpg", "-t", "x", "--bands", "4,3,2"], "the photo has 3 bands"),
        (["street.jpg", "-t", "x", "--white", "much"], "--white much: wanted a number"),
        (["street.jpg", "-t", "x", "--page", "2"], "the photo has 1 page"),
        (["street.jpg", "-t", "x", "--alpha", "none"], '"ignore" or a colour'),
        (["no.jpg", "-t", "x"], "no.jpg"),
        (["street.jpg", "-t", "x", "-o", "a.bmp"], "-o a.bmp: wanted"),
        (["street.jpg", "-t", "x", "-o", "a.png", "--format", "json"], "disagree"),
        (["street.jpg", "-t", "x", "-o", "street.jpg"], "would be overwritten"),
        (["street.jpg", "-t", "x", "--kind", "cutout", "-o", "a.jpg"], "no transparency"),
        (["street.jpg", "-p", "3"], "--point 3: wanted X,Y"),
        (["street.jpg", "-p", "3,a"], "--point 3,a: wanted"),
        (["street.jpg", "-p", "3,3,2"], "wanted 1 .* or 0"),
        (["street.jpg", "-p", "99,3"], "outside the image"),
        (["street.jpg", "-b", "1,2,3"], "--box 1,2,3: wanted X0,Y0,X1,Y1"),
        (["street.jpg", "-t", "x", "--model", "broken"], "no weights called 'broken' try tiny"),
        (["street.jpg", "street.jpg", "-t", "x"], "add -o FOLDER"),
        ([".", "-t", "x", "-o", "."], "is the folder of the photos"),
        ([".", "-t", " ", "-o", "out"], "empty"),
        ([".", "-t", "x", "--exclude", "x", "-o", "out"], "'x' is in text and in exclude"),
        ([".", "-p", "1,1", "--exclude", "x", "-o", "out"], "goes with phrases alone"),
        ([".", "-t", "x", "--threshold", "7", "-o", "out"], "threshold is 7.0"),
        (["street.jpg", "-t", "x", "--threshold", "x=y"], "--threshold x=y: wanted a probab"),
        ([".", "-t", "x", "--explain", "a.png", "-o", "out"], "--explain is about one photo"),
        (["street.jpg", "-t", "x", "--explain", "a.txt"], "--explain a.txt: wanted a file"),
        (["street.jpg", "-t", "x", "--explain", "street.jpg"], "is the photo or the result"),
        (["street.jpg", "-t", "x", "-o", "a.png", "--explain", "a.png"], "is the photo or the"),
        (["street.jpg", "-p", "1,1", "--explain", "a.png"], "--explain works for phrases"),
        (["street.jpg", "-t", "x", "--explain", "a.png"], "nothing to explain"),
    ],
)
def test_errors_are_one_line(textsam_command, arguments, message):
    before = Path("street.jpg").read_bytes()
    result = textsam_command("segment", *arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert result.stdout == ""
    assert Path("street.jpg").read_bytes() == before


def test_unexpected_errors_tell_how_to_see_more(textsam_command, model, monkeypatch):
    monkeypatch.setattr(model, "segment", lambda *_, **__: {}["key"])
    result = textsam_command("segment", "street.jpg", "-t", "x")
    assert result.exit_code == 1
    assert (
        result.stderr.strip()
        == "error: KeyError: 'key' (set TEXTSAM_TRACEBACK=1 for the traceback)"
    )
    monkeypatch.setenv("TEXTSAM_TRACEBACK", "1")
    assert isinstance(textsam_command("segment", "street.jpg", "-t", "x").exception, KeyError)


def test_ctrl_c(textsam_command, model, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "segment", interrupted)
    result = textsam_command("segment", "street.jpg", "-t", "x")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped; finished results are kept"


def test_wrong_usage(textsam_command):
    assert textsam_command("segment").exit_code == 2
    assert textsam_command("segment", "street.jpg", "-t", "x", "--format", "bmp").exit_code == 2


def test_the_model_is_not_loaded_for_a_photo_that_is_missing(textsam_command, model):
    textsam_command("segment", "no.jpg", "-t", "x")
    assert model.loaded == []


# info --------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path):
    """A folder with a small model, its card and its config."""
    folder = tmp_path / "model"
    folder.mkdir()
    header = {
        "encoder.w": {"dtype": "F16", "shape": [10, 20], "data_offsets": [0, 400]},
        "encoder.b": {"dtype": "F16", "shape": [20], "data_offsets": [400, 440]},
        "decoder.s": {"dtype": "F32", "shape": [], "data_offsets": [440, 444]},
        "__metadata__": {"clip": "ViT-L-14-336/openai"},
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(444))
    (folder / "config.json").write_text('{"image_size": 1024}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


def test_info_reads_files(textsam_command, weights):
    info = model_info.read_model_info(str(weights))
    assert info.parameters == 221
    assert info.files[0].parameters == {"encoder": 220, "decoder": 1}
    assert info.files[0].dtypes == ["F16", "F32"]
    assert info.license == "apache-2.0"
    assert model_info.read_model_info(str(weights / "model.safetensors")).parameters == 221
    result = textsam_command("info", weights)
    assert result.exit_code == 0, result.output
    for word in ("221", "encoder", "apache-2.0", "image_size", "1024", "ViT-L-14-336/openai"):
        assert word in result.stdout


def test_models_are_listed(textsam_command):
    for command in ("info", "models"):
        result = textsam_command(command)
        for word in ("tiny *", "sam-vit-huge", "641.1 M", "2564 MB", "Apache-2.0", "on request"):
            assert word in result.stdout
    told = {
        entry["name"]: entry for entry in json.loads(textsam_command("models", "--json").stdout)
    }
    assert told["tiny"]["here"]
    assert told["grounded-sam"]["asks"][0] == "text"
    assert told["grounded-sam"]["detector"]["id"] == "IDEA-Research/grounding-dino-tiny"


def test_info_errors_are_one_line(textsam_command, weights, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (weights / "cut.safetensors").write_bytes(b"\x10\x00")
    (weights.parent / "empty").mkdir()
    for name, message in (
        (weights, "not a complete safetensors file"),
        (weights.parent / "empty", "has no weights"),
        ("nobody/nothing", "is not on this machine"),
        ("not a name!", "is not on this machine"),
    ):
        result = textsam_command("info", name)
        assert result.exit_code == 1
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1


# doctor and the rest -----------------------------------------------------------------------------


def test_doctor(textsam_command, monkeypatch):
    lines = [
        "numpy>=1",
        "nowhere-to-be-found>2",
        'never-published>=6; extra == "demo"',
        'numpy; extra == "x"',
    ]
    lines.append('textsam[demo]; extra == "all"')
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: lines)
    findings = {finding.name: finding for finding in examine()}
    assert findings["numpy"].value == np.__version__
    assert findings["nowhere-to-be-found"].is_problem
    assert findings["nowhere-to-be-found"].advice == "pip install nowhere-to-be-found"
    assert not findings["demo"].is_problem
    assert findings["demo"].advice == 'pip install "textsam[demo]"'
    assert findings["x"].value == f"numpy {np.__version__}"
    assert "all" not in findings
    assert {"textsam", "python", "device", "threads", "tiny"} <= findings.keys()

    result = textsam_command("doctor")
    assert result.exit_code == 1
    assert "nowhere-to-be-found: missing. Type: pip install nowhere-to-be-found" in result.stdout
    told = json.loads(textsam_command("doctor", "--json").stdout)
    assert {"part", "name", "value", "advice", "needed"} == told[0].keys()


def test_doctor_is_content_when_nothing_is_missing(textsam_command, monkeypatch):
    fine = [Finding("packages", "numpy", "2.0")]
    monkeypatch.setattr(sys.modules["textsam.cli.doctor"], "examine", lambda: fine)
    result = textsam_command("doctor")
    assert result.exit_code == 0
    assert "Everything needed for segmentation is installed" in result.stdout


def test_version(textsam_command):
    result = textsam_command("--version")
    assert result.stdout == f"textsam {textsam.__version__}\n"
    assert result.exit_code == 0


def test_python_dash_m_is_the_command_and_starts_light():
    heavy = "{'torch', 'numpy', 'PIL', 'rich.table'}"
    code = f"import sys, textsam.cli.app; print(sorted({heavy} & set(sys.modules)))"
    light = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert light.stdout == "[]\n", light.stderr
    told = subprocess.run(
        [sys.executable, "-m", "textsam", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    for command in ("segment", "info", "doctor"):
        assert command in told.stdout


def test_repeated_boxes_are_an_object_each(textsam_command, model):
    two = ("-b", "2,2,30,30", "-b", "10,10,40,30")
    assert textsam_command("segment", "street.jpg", *two).exit_code == 0
    assert model.prompts[-1]["box"] is None
    assert model.prompts[-1]["boxes"] == [[2, 2, 30, 30], [10, 10, 40, 30]]


def test_a_data_set(textsam_command):
    make_folder()
    for format, file in (("coco", "annotations.json"), ("yolo", "data.yaml")):
        result = textsam_command(
            "segment", "photos", "-t", "wheel", "-o", "set", "--format", format
        )
        assert result.exit_code == 0, result.output
        assert Path("set", file).is_file()
    assert "0 done, 3 kept from an earlier run" in result.stdout
    assert len(list(read_set("set"))) == 3


def test_a_data_set_of_one_photo(textsam_command):
    words = ["segment", "street.jpg", "-t", "wheel", "--format", "coco", "--polygons"]
    result = textsam_command(*words, "-o", "set", "--photos", "none", "--tolerance", "0")
    assert result.exit_code == 0, result.output
    (annotation,) = json.loads(Path("set/annotations.json").read_text())["annotations"]
    assert annotation["segmentation"] == [[0, 0, 20, 0, 20, 30, 0, 30]]
    result = textsam_command(*words)
    assert result.exit_code != 0
    assert "add -o FOLDER" in result.output
