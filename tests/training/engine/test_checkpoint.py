"""Files that are whole or not there."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from training.engine.checkpoint import CheckpointError, CheckpointStore


def state_of(step: int, size: int = 10) -> dict[str, object]:
    return {"step": step, "tensor": torch.arange(float(size)), "nested": {"a": [1, (2.5, None)]}}


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "new")
    path = store.save(7, state_of(7))
    assert store.newest() == path
    read = store.read(path)
    assert read["nested"] == {"a": [1, (2.5, None)]}
    assert torch.equal(read["tensor"], torch.arange(10.0))


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 20, 300):
        store.save(step, state_of(step))
    assert [store.read(path)["step"] for path in store.paths()] == [300, 20]
    assert {path.suffix for path in tmp_path.iterdir()} == {".pt"}


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first = store.save(1, state_of(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=rf"step 2 .*Earlier.*intact: {first.name}.*Make"):
            store.save(2, state_of(2, size=1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.paths() == list(tmp_path.iterdir()) == [first]
    assert store.read(first)["step"] == 1


def test_an_error_that_is_none_of_the_disk_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, RuntimeError)) as error:
        CheckpointStore(tmp_path).save(1, {"function": lambda: None})
    assert not isinstance(error.value, CheckpointError)


@pytest.mark.parametrize("position", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_one_wrong_bit_is_noticed(
    tmp_path: Path, position: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(tmp_path)
    first, second = store.save(1, state_of(1)), store.save(2, state_of(2))
    content = bytearray(second.read_bytes())
    content[int(position * len(content))] ^= 4
    second.write_bytes(content)
    assert store.newest() == first
    assert f"{second} is damaged (its checksum is wrong)" in caplog.text
    assert second.exists()
    store.newest(set_aside=True)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".pt", ".broken"]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-best.pt").write_bytes(b"mine")
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, state_of(1))
    store.save(2, state_of(2))
    assert (tmp_path / "checkpoint-best.pt").read_bytes() == b"mine"
    assert CheckpointStore(tmp_path / "nowhere").newest() is None
