import errno
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textsam import read_set
from textsam.batch.find_photos import find_photos
from textsam.batch.folders import segment_folder
from textsam.batch.journal import Journal, fingerprint, lock_folder
from textsam.errors import PromptError, WeightsError, one_line
from textsam.results.segmentation import Segmentation


class StandIn:
    """Finds what is brighter than the threshold; counts how often it was asked."""

    def __init__(self, name="stand-in"):
        self.name = name
        self.asked = 0
        self.prompts = []

    def segment(self, image, *, text=None, threshold=None, **prompt):
        self.asked += 1
        self.prompts.append({"text": text, "threshold": threshold, **prompt})
        mask = image.mean(-1) > (threshold or 0.5) * 255
        phrases = [text] if isinstance(text, str) else list(text or [])
        labels = phrases or [None]
        masks = np.stack([mask] * len(labels))
        return Segmentation.from_masks(
            masks,
            scores=[0.5] * len(labels),
            labels=labels,
            presence=dict.fromkeys(phrases, 0.5),
        )


@pytest.fixture
def photos(tmp_path):
    """Four photos, one of them broken, one in a folder inside."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "c.jpg", "sub/d.png"):
        pixels = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "b.jpg").write_bytes(b"not a photo")
    return folder


def tree(folder):
    """Every file below a folder and what is in it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run(photos, tmp_path):
    seen = []
    report = segment_folder(
        StandIn(),
        photos,
        tmp_path / "out",
        text=["wheel", "door"],
        format="json",
        on_progress=seen.append,
    )
    out = tmp_path / "out"
    names = sorted(name for name in tree(out) if not name.startswith(".textsam/"))
    assert names == ["a.json", "c.json", "errors.jsonl", "sub/d.json", "summary.json"]
    assert Segmentation.load(out / "sub" / "d.json").labels == ["wheel", "door"]
    assert [photo.status for photo in report.photos] == ["done", "failed", "done", "done"]
    assert [photo.source.name for photo in report.failed] == ["b.jpg"]
    assert seen == report.photos
    assert [(photo.index, photo.total) for photo in seen] == [(i, 4) for i in range(4)]
    assert report.masks == {"wheel": 3, "door": 3}
    (error,) = lines(out / "errors.jsonl")
    assert error["source"] == "b.jpg"
    assert "not an image" in error["error"]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["photos"], summary["failed"], summary["masks"]) == (4, 1, report.masks)
    assert summary["settings"]["text"] == ["wheel", "door"]


def test_only_what_is_missing_is_made_again(photos, tmp_path):
    out = tmp_path / "out"
    segment_folder(StandIn(), photos, out, text="wheel")
    first = tree(out)

    again = StandIn()
    report = segment_folder(again, photos, out, text="wheel")
    assert again.asked == 0  # the broken photo fails before the model sees it
    assert [photo.status for photo in report.photos] == ["kept", "failed", "kept", "kept"]
    assert report.masks == {"wheel": 3}
    assert tree(out) == first

    (out / "a.png").unlink()
    (out / "c.png").write_bytes(first["c.png"][:-1])  # incomplete
    Image.new("RGB", (4, 4)).save(photos / "sub" / "d.png")  # another photo
    again = StandIn()
    assert len(segment_folder(again, photos, out, text="wheel").failed) == 1
    assert again.asked == 3
    assert {name: data for name, data in tree(out).items() if "/" not in name} == {
        name: data for name, data in first.items() if "/" not in name
    }

    Image.new("RGB", (4, 4)).save(photos / "b.jpg")  # mended
    again = StandIn()
    assert not segment_folder(again, photos, out, text="wheel").failed
    assert again.asked == 1
    assert not (out / "errors.jsonl").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"text": "door"},
        {"threshold": 0.25},
        {"strategy": "prompt"},
        {"exclude": "steering wheel"},
        {"background": ["street"]},
        {"overlap": "exclusive"},
        {"points": np.array([[1.0, 2.0]])},
        {"box": (0, 0, 4, 4)},
        {"kind": "mask"},
        {"model": StandIn("another")},
        {"overwrite": True},
    ],
)
def test_other_settings_make_everything_again(photos, tmp_path, change):
    out = tmp_path / "out"
    segment_folder(StandIn(), photos, out, text="wheel")
    model = change.pop("model", StandIn())
    report = segment_folder(model, photos, out, **{"text": "wheel", **change})
    assert [photo.status for photo in report.photos] == ["done", "failed", "done", "done"]
    assert model.asked == 3


def test_a_photo_that_fails_now_leaves_no_old_result(photos, tmp_path):
    out = tmp_path / "out"
    segment_folder(StandIn(), photos, out, text="wheel")
    (photos / "a.png").write_bytes(b"broken since")
    report = segment_folder(StandIn(), photos, out, text="wheel")
    assert len(report.failed) == 2
    assert not (out / "a.png").exists()
    assert b'"a.png"' not in (out / ".textsam" / "done.jsonl").read_bytes()


def test_prompts_reach_the_model(photos, tmp_path):
    model = StandIn()
    segment_folder(
        model,
        photos / "a.png",
        tmp_path / "out",
        points=[[1, 2]],
        labels=[1],
        box=np.array([0, 0, 3, 4.5]),
        strategy="prompt",
        threshold=0.25,
    )
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings["box"] == [0, 0, 3, 4.5]
    [prompt] = model.prompts
    assert prompt.pop("box").tolist() == [0, 0, 3, 4.5]
    assert model.prompts == [
        {"text": None, "threshold": 0.25, "points": [[1, 2]], "labels": [1]}
        | {"strategy": "prompt"}
    ]


def test_what_phrases_compete_with_reaches_the_model(photos, tmp_path):
    model = StandIn()
    segment_folder(
        model,
        photos / "a.png",
        tmp_path / "out",
        text="wheel",
        exclude="steering  wheel",
        background=["street", "sky"],
        strategy="rank",
        overlap="exclusive",
    )
    [prompt] = model.prompts
    assert prompt["background"] == ["street", "sky"]
    assert (prompt["strategy"], prompt["overlap"]) == ("rank", "exclusive")
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings["exclude"] == ["steering wheel"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"text": "wheel", "exclude": "wheel"}, "'wheel' is in text and in exclude"),
        ({"points": [[1, 2]], "exclude": "wheel"}, "exclude goes with phrases alone"),
        (
            {"text": "wheel", "box": (0, 0, 4, 4), "background": "sky"},
            "goes with phrases alone",
        ),
        ({"text": "wheel", "background": " "}, "empty"),
        ({"text": "wheel", "overlap": "maybe"}, "overlap is 'maybe'"),
        ({"text": "wheel", "strategy": "guess"}, "strategy is 'guess'"),
        ({"text": "wheel", "strategy": "prompt", "exclude": "x"}, "exclude does not work with"),
        ({"text": "wheel", "threshold": 1.5}, "threshold is 1.5"),
    ],
)
def test_what_no_photo_can_be_asked_is_said_once(photos, tmp_path, question, message):
    model = StandIn()
    with pytest.raises(PromptError, match=message):
        segment_folder(model, photos, tmp_path / "out", **question)
    assert model.asked == 0
    assert not (tmp_path / "out").exists()


def test_yolo_classes_are_the_same_in_every_photo(photos, tmp_path):
    out = tmp_path / "out"
    segment_folder(StandIn(), photos, out, text=["wheel", "door"], format="txt")
    assert (out / "classes.txt").read_text() == "wheel\ndoor\n"
    assert {line[0] for line in (out / "a.txt").read_text().splitlines()} == {"0", "1"}


# Killed and started again ------------------------------------------------------------------------


def in_child(work):
    """Run in a forked process; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(step, folder):
    """Kill this process at its step-th touch of a file below a folder."""
    touched = 0

    def hook(event, args):
        nonlocal touched
        files = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.chmod")
        if event in files and str(folder) in str(args[0]):
            if touched == step:
                os.kill(os.getpid(), signal.SIGKILL)
            touched += 1

    sys.addaudithook(hook)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_anywhere_and_started_again_gives_the_same(photos, tmp_path, monkeypatch):
    # What a killed process wrote stays readable; fsync is for a machine that loses its power.
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def run(out):
        segment_folder(StandIn(), photos, out, text=["wheel"], format="json")

    (photos / "c.jpg").unlink()  # a good and a bad photo, and one in a folder, are enough
    run(tmp_path / "undisturbed")
    expected = tree(tmp_path / "undisturbed")
    assert len(expected) == 7

    killed = 0
    for step in range(500):
        out = tmp_path / f"out{step}"
        status = in_child(lambda out=out, step=step: (kill_at(step, out), run(out)))
        killed += status == -signal.SIGKILL
        for path in out.rglob("*.json"):
            json.loads(path.read_bytes())  # what has its name is complete
        run(out)
        assert tree(out) == expected, step
        if status == 0:
            break
    assert status == 0
    assert killed > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_again_and_again_goes_forward(photos, tmp_path):
    """Each process dies while it works on a photo, so each finishes one more than the last."""
    out = tmp_path / "out"

    class Dies(StandIn):
        def segment(self, image, **prompt):
            if self.asked == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().segment(image, **prompt)

    statuses = [in_child(lambda: segment_folder(Dies(), photos, out, text="x")) for _ in range(3)]
    assert statuses == [-signal.SIGKILL, -signal.SIGKILL, 0]
    model = StandIn()
    segment_folder(model, photos, out, text="x")
    assert model.asked == 0


def test_half_a_line_in_the_journal_is_left_out(photos, tmp_path):
    out = tmp_path / "out"
    segment_folder(StandIn(), photos, out, text="x")
    expected = tree(out)
    journal = out / ".textsam" / "done.jsonl"
    for damage in (
        journal.read_bytes()[:-20],
        b"",
        b"\xff\x00garbage\n[1]\n{}\n",
        b'{"output": 3}\n',
    ):
        journal.write_bytes(damage)
        segment_folder(StandIn(), photos, out, text="x")
        assert tree(out) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="holds the lock in a forked process")
def test_two_runs_do_not_meet(photos, tmp_path):
    def nested(_):
        assert in_child(lambda: segment_folder(StandIn(), photos, tmp_path / "out", text="x")) == 1
        with pytest.raises(RuntimeError, match="another run is writing"):
            segment_folder(StandIn(), photos, tmp_path / "out", text="x")

    segment_folder(StandIn(), photos, tmp_path / "out", text="x", on_progress=nested)


# What stops a run --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [WeightsError("no"), OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()]
)
def test_what_is_no_photos_fault_stops_the_run(photos, tmp_path, error):
    class Fails(StandIn):
        def segment(self, image, **prompt):
            if self.asked == 1:
                raise error
            return super().segment(image, **prompt)

    with pytest.raises(type(error)):
        segment_folder(Fails(), photos, tmp_path / "out", text="x")
    model = StandIn()
    report = segment_folder(model, photos, tmp_path / "out", text="x")
    assert len(report.failed) == 1
    assert model.asked == 2


@pytest.mark.parametrize(
    "error", [PromptError("outside"), RuntimeError("CUDA out of memory"), MemoryError()]
)
def test_what_is_one_photos_fault_does_not(photos, tmp_path, error):
    class Fails(StandIn):
        def segment(self, image, **prompt):
            result = super().segment(image, **prompt)
            if self.asked == 1:
                raise error
            return result

    report = segment_folder(Fails(), photos, tmp_path / "out", text="x")
    assert [photo.status for photo in report.photos] == ["failed", "failed", "done", "done"]
    assert report.photos[0].error == one_line(error)


def test_wrong_runs_raise_before_anything_is_written(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for paths, options, message in (
        (photos, {}, "nothing to segment"),
        (photos, {"text": " "}, "empty"),
        (photos, {"text": "x", "format": "bmp"}, "format 'bmp'"),
        (photos, {"text": "x", "format": "json", "kind": "mask"}, "kinds are for pictures"),
        (tmp_path / "empty", {"text": "x"}, "no photos"),
        ([], {"text": "x"}, "no photos"),
    ):
        with pytest.raises(ValueError, match=message):
            segment_folder(StandIn(), paths, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="is the folder of the photos"):
        segment_folder(StandIn(), photos, photos, text="x")
    with pytest.raises(ValueError, match="would be overwritten"):
        segment_folder(StandIn(), [photos / "a.png"], photos, text="x")
    assert not (tmp_path / "out").exists()
    assert len(tree(photos)) == 4


# Which photos, and what their results are called -------------------------------------------------


def outputs(paths, tmp_path, suffix=".json"):
    return [photo.output for photo in find_photos(paths, tmp_path / "out", suffix=suffix).photos]


def test_names_of_outputs(tmp_path):
    names = [
        "b.PNG",
        "a.jpg",
        "x/c.tif",
        ".hidden.png",
        ".git/d.png",
        "notes.txt",
        "out/a.png",
        "a.b.webp",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert outputs([tmp_path], tmp_path) == ["a.b.json", "a.json", "b.json", "x/c.json"]
    assert outputs([tmp_path / "x", tmp_path / "b.PNG"], tmp_path) == ["c.json", "b.json"]
    twice = [tmp_path / "a.jpg", tmp_path / "x" / ".." / "a.jpg"]
    assert outputs(twice, tmp_path) == ["a.json"]
    assert outputs([tmp_path / "missing.jpg"], tmp_path) == ["missing.json"]
    (tmp_path / "A.png").touch()
    (tmp_path / "summary.jpg").touch()
    assert outputs([tmp_path], tmp_path) == [
        *("A.png.json", "a.b.json", "a.jpg.json", "b.json", "summary.jpg.json", "x/c.json")
    ]


def test_names_of_several_folders(tmp_path):
    for name in ("p/a.png", "q/a.png", "r/p/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert outputs([tmp_path / "p", tmp_path / "q"], tmp_path) == ["p/a.json", "q/a.json"]
    for paths in (["p", "r/p"], ["p/a.png", "q/a.png"]):
        with pytest.raises(ValueError, match="would both be written to"):
            outputs([tmp_path / path for path in paths], tmp_path)


def test_a_missing_file_is_reported_and_does_not_stop_the_run(photos, tmp_path):
    report = segment_folder(
        StandIn(), [photos / "no.png", photos / "a.png"], tmp_path / "out", text="x"
    )
    assert [photo.status for photo in report.photos] == ["failed", "done"]
    assert "no.png" in report.photos[0].error


def test_fingerprint_and_journal(tmp_path):
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1})
    (tmp_path / ".textsam").mkdir()
    journal = Journal(tmp_path, {"a": 1})
    journal.discard("never there")
    assert json.loads((tmp_path / ".textsam" / "settings.json").read_text()) == {"a": 1}


def test_errors_on_one_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert one_line(MemoryError()) == "MemoryError"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_a_file_system_without_locks_is_no_reason_not_to_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_folder(tmp_path), lock_folder(tmp_path):
        assert "cannot lock" in caplog.text


def test_linked_folders_are_searched_once(tmp_path):
    for name in ("in/own/a.png", "elsewhere/b.png", "elsewhere/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = tmp_path / "in"
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "own")  # by name before the folder itself
    (root / "own" / "loop").symlink_to(root)
    (root / "to_out").symlink_to(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "z.png").touch()
    assert outputs([root], tmp_path) == ["own/a.json", "link/b.json", "link/deep/c.json"]


def test_every_suffix_is_read_or_counted(tmp_path):
    for name in ("a.jpg", "b.HEIC", "c.avif", "d.jxl", "e.CR2", "f.cr2", "g.psd", "h.xmp", "i.txt"):
        (tmp_path / name).touch()
    found = find_photos([tmp_path], tmp_path / "out", suffix=".json")
    assert [photo.name for photo in found.photos] == ["a.jpg", "b.HEIC", "c.avif", "d.jxl"]
    assert found.left_out == {".cr2": 2, ".psd": 1}
    for name in ("a.jpg", "b.HEIC", "c.avif", "d.jxl"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"There are 2 \.cr2, 1 \.psd"):
        outputs([tmp_path], tmp_path)


def test_patterns(tmp_path, monkeypatch):
    for name in ("p/a.png", "p/b.jpg", "p/q/c.png", "p/odd[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert outputs(["p/*.png"], tmp_path) == ["a.json", "odd[1].json"]
    assert outputs(["p/**/*.png"], tmp_path) == ["a.json", "odd[1].json", "c.json"]
    assert outputs(["p/odd[1].png"], tmp_path) == ["odd[1].json"]
    with pytest.raises(ValueError, match=r"no photos match 'p/\*\.gif'"):
        outputs(["p/*.gif"], tmp_path)
    with pytest.raises(ValueError, match="is an address"):
        outputs([Path("s3://bucket/a.png"), Path("p/a.png")], tmp_path)


def test_how_photos_are_read(photos, tmp_path):
    rgba = np.full((9, 11, 4), 100, np.uint8)
    rgba[..., 3] = 0
    Image.fromarray(rgba).save(photos / "a.png")
    seen = []

    class Sees(StandIn):
        def segment(self, image, **options):
            seen.append(int(image[0, 0, 0]))
            return super().segment(image, **options)

    def run(**reading):
        segment_folder(
            Sees(), photos / "a.png", tmp_path / "out", text="x", format="json", reading=reading
        )

    run(alpha="black")
    run(alpha="black")
    run(alpha="ignore")
    assert seen == [0, 100]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["reading"] == {"alpha": "ignore"}
    with pytest.raises(TypeError, match="Type: bands="):
        run(band=3)
    with pytest.raises(ValueError, match="counted from 1"):
        run(bands=(0, 1, 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_a_data_set_killed_anywhere_is_the_same_in_the_end(format, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)

    def run(out):
        segment_folder(StandIn(), photos, out, text=["wheel"], format=format)

    (photos / "c.jpg").unlink()
    run(tmp_path / "undisturbed")
    expected = tree(tmp_path / "undisturbed")
    killed = 0
    for step in range(0, 500, 3):
        out = tmp_path / f"out{step}"
        status = in_child(lambda out=out, step=step: (kill_at(step, out), run(out)))
        killed += status == -signal.SIGKILL
        run(out)
        assert tree(out) == expected, step
        if status == 0:
            break
    assert status == 0
    assert killed > 10


def test_a_data_set_of_a_run(photos, tmp_path):
    model, out = StandIn(), tmp_path / "set"
    report = segment_folder(model, photos, out, text=["wheel", "door"], format="coco")
    assert [photo.status for photo in report.photos] == ["done", "failed", "done", "done"]
    first = json.loads((out / "annotations.json").read_bytes())
    assert [image["file_name"] for image in first["images"]] == ["a.png", "c.jpg", "sub/d.png"]
    assert [category["name"] for category in first["categories"]] == ["wheel", "door"]
    copy = out / "images" / "sub" / "d.png"
    assert copy.read_bytes() == (photos / "sub" / "d.png").read_bytes()

    # A photo more, another format: only the new one is segmented, and the others keep their ids.
    Image.new("RGB", (8, 8), "white").save(photos / "aa.png")
    again = StandIn()
    segment_folder(again, photos, out, text=["wheel", "door"], format="yolo", photos="link")
    assert again.asked == 1
    assert not (out / "annotations.json").exists()
    assert (out / "images" / "a.png").is_symlink()
    segment_folder(again, photos, out, text=["wheel", "door"], format="coco")
    assert again.asked == 1
    second = json.loads((out / "annotations.json").read_bytes())
    for key in ("images", "annotations"):
        kept = {row["id"]: row for row in second[key]}
        assert [kept[row["id"]] for row in first[key]] == first[key]
    (path, result), *_ = read_set(out)
    assert path.name == "a.png"
    assert result.labels == ["wheel", "door"]


def test_options_of_data_sets_are_for_data_sets(photos, tmp_path):
    for options in ({"polygons": True}, {"photos": "link"}):
        with pytest.raises(ValueError, match="it is for coco, yolo"):
            segment_folder(StandIn(), photos, tmp_path / "out", text="x", format="json", **options)
    with pytest.raises(ValueError, match="FiftyOne reads coco"):
        segment_folder(StandIn(), photos, tmp_path / "out", text="x", format="fiftyone")
    assert not (tmp_path / "out").exists()
