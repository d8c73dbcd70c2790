"""`training.studies.unseen_names` and its split, on figures known before and on a tiny model."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import PathwayConfig, TextPathway
from textsam.inference.model import TextSAM
from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.results.segmentation import Segmentation
from textsam.values.rle import encode_mask
from training.evaluation import command
from training.evaluation.data_sets import read_sets
from training.recipes.tiny.held_out_names import HELD_OUT, KEPT, is_held_out
from training.studies.unseen_names import __main__ as names
from training.studies.unseen_names import name_ranking
from training.studies.unseen_names.name_ranking import name_galleries, rank_of_own

SIZE = (60, 90)
DATA = Path(__file__).parents[4] / "shared" / "data" / "train"


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _write(path: Path, photos: list[list[tuple[str, np.ndarray, bool]]]) -> Path:
    """A file in the schema; each photo is a plain grey of its number, not exhaustive."""
    rows = []
    for index, objects in enumerate(photos):
        file = io.BytesIO()
        Image.new("RGB", SIZE[::-1], (index,) * 3).save(file, "PNG")
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "image_id": f"photo {index}",
                "source": "test",
                "license": "none",
                "height": SIZE[0],
                "width": SIZE[1],
                "exhaustive": False,
                "void": None,
                "objects": [
                    {
                        "label": label,
                        "kind": "thing",
                        "rle": encode_mask(mask).counts.decode(),
                        "ignore": ignore,
                    }
                    for label, mask, ignore in objects
                ],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


PUG, PUG_TOO, ANT = _box(0, 0, 30, 30), _box(40, 0, 70, 30), _box(10, 10, 50, 50)


def _file(folder: Path) -> Path:
    return _write(
        folder / "named.parquet",
        [
            [("pug", PUG, False), ("pug", PUG_TOO, False), ("dog", ANT, False)],
            [("Ant", ANT, False), ("brain", _box(60, 40, 90, 60), True)],
            [("dog", PUG, False)],
            [("ibis", _box(0, 0, 2, 2), False)],
        ],
    )


class FakeClip:
    """Text n is the n-th axis of its dictionary; a crop is what `say(level)` says it is."""

    def __init__(self, say):
        self.say, self.words = say, {}

    def _row(self, word: str) -> torch.Tensor:
        index = self.words.setdefault(word, len(self.words))
        return F.one_hot(torch.tensor(index), 2000).float()

    def encode_text(self, phrases):
        return torch.stack([self._row(phrase) for phrase in phrases])

    def encode_masks(self, image, masks, *, expand):
        return torch.stack([self._row(self.say(int(image[0, 0, 0]))) for _ in masks])


class FakeModel:
    """A perfect model but for what its CLIP says."""

    def __init__(self, say):
        self.clip, self.opened = FakeClip(say), []

    @contextmanager
    def open(self, image):
        level = int(image[0, 0, 0])
        self.opened.append(level)

        def segment(*, text, strategy):
            found = {(0, "pug"): [PUG, PUG_TOO], (1, "ant"): [ANT]}.get((level, text), [])
            found = found if strategy == "auto" else found[:1]
            return Segmentation.from_masks(np.stack(found) if found else np.zeros((0, *SIZE), bool))

        yield SimpleNamespace(segment=segment)


def _measure(path: Path, say) -> dict:
    data = read_sets([path])[0]
    galleries = name_galleries(names.read_labels([path]), seed=0)
    return name_ranking.measure_set(FakeModel(say), data, galleries=galleries)


def test_the_split_is_two_times_sixty_names():
    assert len(set(HELD_OUT)) == len(set(KEPT)) == 60
    assert not set(HELD_OUT) & set(KEPT)
    assert all(is_held_out(name) for name in HELD_OUT)
    assert not any(is_held_out(name) for name in KEPT)
    assert is_held_out(" italian Greyhound ") and not is_held_out("greyhound")


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/train is not on this machine")
def test_the_split_is_in_the_data_and_shares_no_word_with_what_is_kept():
    labels = set(names.read_labels(sorted(DATA.glob("*.parquet"))))
    named = set(names.read_labels([DATA / "named_objects.parquet"]))
    coco = set(names.read_labels([DATA / "coco.parquet"]))

    for group in (HELD_OUT, KEPT):
        assert set(group) <= labels
        assert len(set(group) & (named - coco)) == 48
        assert len(set(group) & coco) == 12
    for name in HELD_OUT:
        words = set(name.casefold().split())
        near = {other for other in labels - {name} if words & set(other.casefold().split())}
        # What a later file names alike is left out, too.
        assert all(map(is_held_out, near)), (name, near)


def test_galleries_hold_both_groups_once():
    labels = ["dog", "Dog", "object", "pug", *(f"name {i}" for i in range(300))]

    galleries = name_galleries(labels, seed=0)

    assert len(galleries.all) == 120 + 1 + 300  # one dog, no "object"; pug is one of the 120
    assert set(HELD_OUT) | set(KEPT) < set(galleries.study) < set(galleries.all)
    assert len(galleries.study) == len(set(galleries.study)) == 192
    assert name_galleries(reversed(labels), seed=0) == galleries
    assert name_galleries(labels, seed=1).study != galleries.study
    assert galleries.own == {"held out": HELD_OUT, "kept": KEPT}


def test_the_rank_of_the_own_name():
    texts = torch.eye(4)
    images = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.9, 0.1, 0.2, 0.3], [0.5, 0.5, 0.5, 0.5]])

    assert rank_of_own(images, texts, [0, 2, 1]).tolist() == [1, 3, 4]


def test_a_model_that_names_held_out_things_wrongly_shows_the_gap(tmp_path):
    result = _measure(_file(tmp_path), lambda level: "dog" if level == 0 else "ant")

    held_out, kept = result["means"]["held out"], result["means"]["kept"]
    assert (held_out["names"], held_out["masks"], held_out["phrases"]) == (2, 2, 2)
    assert held_out["top1_all"] == held_out["top5_all"] == held_out["top5_own"] == 0.0
    assert (kept["masks"], kept["top1_all"], kept["top1_study"], kept["top1_own"]) == (1, 1, 1, 1)
    assert held_out["auto"] == 0.5  # both pugs, no ibis
    assert held_out["prompt"] == 0.25  # one pug of two, no ibis
    assert kept["whole"] == pytest.approx(1600 / (5400 - 600))  # the brain is to be ignored
    assert result["small"] == 1  # the ibis
    assert result["photos"] == 3


def test_means_by_name_weigh_every_name_alike():
    crops = [
        {"label": name, "group": "kept", "all": rank, "study": rank, "own": rank}
        for name, rank in [("ant", 1), ("ant", 1), ("ant", 1), ("ox", 9)]
    ]

    means = name_ranking.group_means(crops, [], "kept")

    assert means["top1_all"] == 0.75
    assert means["by_name"]["top1_all"] == 0.5
    assert means["auto"] is means["by_name"]["auto"] is None
    assert name_ranking.group_means(crops, [], "held out")["top1_all"] is None


def _tiny(*, text: bool = True) -> TextSAM:
    """A random model, whose figures mean nothing but whose parts are the real ones."""
    import open_clip

    torch.manual_seed(0)
    sam = Sam(
        SamConfig(
            encoder=TimmConfig(name="test_efficientnet"),
            image_size=64,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
        )
    )
    if not text:
        return TextSAM(sam, name="no-text")
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_efficientnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 32,
        },
        "text_cfg": {
            "context_length": 12,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 1,
        },
    }
    clip = ClipEncoder.from_model(
        open_clip.CustomTextCLIP(**config),
        tokenizer=open_clip.SimpleTokenizer(context_length=12),
        name="random",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    pathway = TextPathway(
        PathwayConfig(
            clip_width=16,
            prompt_width=32,
            hidden=24,
            dense_channels=(32, 48, 64),
            dense_width=16,
            dense_image_size=64,
        )
    )
    return TextSAM(sam, clip=clip, pathway=pathway, name="random")


def test_the_command_on_a_random_model(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "load_model", lambda name: _tiny())
    report = tmp_path / "report.json"
    path = _file(tmp_path)
    second = _write(tmp_path / "more.parquet", [[("zebra", ANT, False)]])

    assert names.main([str(path), str(second), "--json", str(report)]) == 0

    printed = capsys.readouterr().out
    assert "both, by name" in printed
    assert "top-1 / 5 of 121" in " ".join(printed.split())  # both groups, and the dog
    data = json.loads(report.read_text())
    first, other = data["sets"]
    assert [crop["label"] for crop in first["crops"]] == ["pug", "pug", "ant"]
    assert [crop["label"] for crop in other["crops"]] == ["zebra"]
    for crop in first["crops"]:
        assert 1 <= crop["own"] <= 60 and crop["own"] <= crop["study"] <= 121
    assert "dog" in first["galleries"]["all"]


def test_models_that_cannot_and_files_that_are_not_there_are_one_line(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "load_model", lambda name: _tiny(text=False))
    assert names.main([str(_file(tmp_path))]) == 2
    assert "no CLIP" in capsys.readouterr().err

    missing = str(tmp_path / "no.parquet")
    assert names.main([missing, "--vocabulary", missing]) == 2
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1 and "no.parquet" in printed
