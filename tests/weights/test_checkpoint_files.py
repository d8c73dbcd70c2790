"""State dicts inside checkpoints load as they are inside; what is none says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.weights.checkpoint_files import LOADS, REFUSED, FileCase
from tests.weights.test_convert import VIT, random_state
from textsam import TextSAM
from textsam.errors import WeightsError
from textsam.weights.checkpoint_files import read_state
from textsam.weights.convert import open_checkpoint
from textsam.weights.info import read_model_info
from textsam.weights.released_names import to_official


@pytest.mark.parametrize("case", LOADS, ids=lambda case: case.name)
def test_a_wrapped_state_dict_is_the_same_model(case: FileCase, tmp_path: Path) -> None:
    state = random_state(VIT)
    path = case.write(tmp_path, to_official(state))
    config, weights, peeled = open_checkpoint(path)
    assert config == VIT
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], state[key]) for key in state)
    assert case.says in "; ".join(peeled) and bool(peeled) == bool(case.says)
    (file,) = read_model_info(str(path)).files
    assert file.metadata.get("peeled off", "") == "; ".join(peeled)
    assert file.parameters.keys() == {"image_encoder", "prompt_encoder", "mask_decoder"}


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_what_is_no_checkpoint_says_what_it_is_in_one_line(case: FileCase, tmp_path: Path) -> None:
    path = case.write(tmp_path, to_official(random_state(VIT)))
    with pytest.raises(WeightsError, match=case.says) as caught:
        TextSAM.from_pretrained(path)
    assert "\n" not in str(caught.value)


def test_the_loaded_model_says_what_was_peeled_off(tmp_path: Path) -> None:
    case = next(case for case in LOADS if "Lightning" in case.name)
    model = TextSAM.from_pretrained(case.write(tmp_path, to_official(random_state(VIT))))
    assert "optimizer_states" in model.parts.peeled[0]
    assert "names without 'model.sam.'" in repr(model)
    saved = model.save_pretrained(tmp_path / "mine")
    assert not TextSAM.from_pretrained(saved).parts.peeled


def test_missing_weights_inside_a_checkpoint_are_still_named(tmp_path: Path) -> None:
    state = to_official(random_state(VIT))
    left_out = state.popitem()[0]
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=f"missing: {left_out}"):
        open_checkpoint(tmp_path / "m.pth")


def test_random_bytes_raise_no_other_error(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        start = (b"", b"PK\3\4", b"\x80\x02", b"\x80\x02c__builtin__\n")[number % 4]
        noise = bytes(torch.randint(0, 256, (100,), generator=generator).tolist())
        for suffix in (".pth", ".safetensors"):
            path = tmp_path / f"noise{suffix}"
            path.write_bytes(start + noise)
            with pytest.raises(WeightsError):
                read_state(path)
