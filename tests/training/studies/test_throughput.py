"""`training.studies.throughput` with a clock that the test turns, and on the real loader."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from textsam.modeling.config import SamConfig, TimmConfig
from textsam.modeling.sam import Sam
from textsam.values.rle import encode_mask
from training.studies.throughput import __main__ as throughput
from training.studies.throughput.__main__ import EncoderClock, measure_throughput


class Time:
    """A clock that goes on only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Slow(torch.autograd.Function):
    """The identity, which takes `forth` seconds, and `back` in the backward pass."""

    @staticmethod
    def forward(ctx, x, time, forth, back):
        ctx.time, ctx.back = time, back
        time.seconds += forth
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.time.seconds += ctx.back
        return gradient, None, None, None


class Part(nn.Module):
    def __init__(self, time: Time, forth: float, back: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.how = (time, forth, back)

    def forward(self, x: Tensor) -> Tensor:
        return Slow.apply(x * self.scale, *self.how)


class Toy(nn.Module):
    """Encoder 1 s forth and 2 s back, decoder 3 s and 4 s."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self.encoder, self.decoder = Part(time, 1.0, 2.0), Part(time, 3.0, 4.0)

    def forward(self, batch) -> tuple[Tensor, dict]:
        return self.decoder(self.encoder(batch.x)).sum(), {}


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return 4


def _batches(time: Time, *, wait: float, count: int) -> Iterator[Batch]:
    for index in range(count):
        time.seconds += 100.0 if index == 0 else wait  # the first is slow, as workers start
        yield Batch(x=torch.ones(2), weight=10)


def test_each_part_gets_its_share_of_the_time():
    time = Time()
    toy = Toy(time)

    measured = measure_throughput(
        toy, _batches(time, wait=10.0, count=6), encoder=toy.encoder, steps=5, warm_up=1, now=time
    )

    assert measured.seconds == 5 * 20.0
    assert measured.waiting == 10 / 20
    assert measured.encoder == 3 / 20
    assert measured.decoder == 7 / 20
    assert measured.optimizer == 0.0
    assert measured.images == 4 / 20
    assert measured.masks == 10 / 20
    assert measured.peak > 10**7


def test_it_trains_what_it_times():
    time = Time()
    toy = Toy(time)

    measure_throughput(
        toy, _batches(time, wait=0.0, count=3), encoder=toy.encoder, steps=3, warm_up=0, now=time
    )

    assert toy.encoder.scale != 1 and toy.decoder.scale != 1


def test_a_frozen_encoder_has_no_backward_time():
    time = Time()
    toy = Toy(time)
    toy.encoder.scale.requires_grad_(False)

    measured = measure_throughput(
        toy, _batches(time, wait=0.0, count=4), encoder=toy.encoder, steps=3, warm_up=1, now=time
    )

    assert measured.encoder == 1 / 8
    assert measured.decoder == 7 / 8


def test_batches_that_end_early_are_no_figure():
    time = Time()
    toy = Toy(time)

    with pytest.raises(ValueError, match="ended at 2; wanted 4"):
        measure_throughput(
            toy, _batches(time, wait=0, count=2), encoder=toy.encoder, steps=3, warm_up=1, now=time
        )


def test_the_hooks_are_gone_afterwards():
    time = Time()
    toy = Toy(time)
    with EncoderClock(encoder=toy.encoder, now=time) as clock:
        toy.encoder(torch.ones(1))
        assert clock.seconds == 1.0
    toy.encoder(torch.ones(1))

    assert clock.seconds == 1.0


def _file(path: Path) -> Path:
    """Eight photos of a square."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(8):
        mask = np.zeros((48, 64), dtype=bool)
        mask[10:35, 20 : 45 + index] = True
        pixels = rng.integers(0, 99, (48, 64, 3), dtype=np.uint8)
        pixels[mask] += 120
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append(
            {
                "image": {"bytes": file.getvalue(), "path": None},
                "image_id": str(index),
                "source": "test",
                "license": "none",
                "height": 48,
                "width": 64,
                "exhaustive": True,
                "void": None,
                "objects": [
                    {
                        "label": "square",
                        "kind": "thing",
                        "rle": encode_mask(mask).counts.decode(),
                        "ignore": False,
                    }
                ],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _small_objective(*, image_size: int, rounds: int) -> tuple[nn.Module, nn.Module]:
    from training.objectives.sam_objective import SamObjective, SamObjectiveConfig
    from training.prompting import PromptConfig

    torch.manual_seed(0)
    sam = Sam(
        SamConfig(
            encoder=TimmConfig(name="test_efficientnet"),
            image_size=image_size,
            embed_dim=32,
            decoder_heads=4,
            decoder_mlp=48,
            iou_hidden=24,
        )
    )
    prompts = PromptConfig(points=rounds - 1, silent_among=0, silent_last=0)
    return SamObjective(sam, config=SamObjectiveConfig(prompts=prompts)), sam.image_encoder


def test_the_command_with_the_real_loader(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "tiny_objective", _small_objective)
    options = ["--workers", "0", "1", "--steps", "2", "--warm-up", "1", "--photos", "2"]

    path = str(_file(tmp_path / "squares.parquet"))
    assert throughput.main([path, *options, "--size", "64", "--rounds", "2"]) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line and line[0] in ("0", "1")]
    assert [row[0] for row in rows] == ["0", "1"]
    for row in rows:
        assert float(row[1]) > 0 and float(row[2]) > 0
        shares = [float(cell.rstrip("%")) for cell in row[3:7]]
        assert sum(shares) == pytest.approx(100, abs=0.3)


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    assert throughput.main([str(tmp_path / "no.parquet")]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert "no.parquet" in printed.err
