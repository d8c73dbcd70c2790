"""`tiny` without open_clip, timm and transformers equals `tiny` with them, to the last bit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.light import DeferredClip, LightTokenizer
from textsam.modeling.efficientnet_lite import EFFICIENTNET_LITE0, EfficientNetLite0

PHRASES = [
    "wheel",
    "  The   red CAR's door, 2nd from left... ",
    "don't they'll we've I'm",
    'a-b_c(d)[e]{f} 100% @#$^*~`|\\/:;"?!',
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 90,
    " ".join(["word"] * 40),  # cut off
    "y",
    "",
]
OTHERS = ["naïve café", "tea &amp; milk", "<start_of_text> dog", "狗", "a\tb", "cafÃ©"]


@pytest.fixture(scope="module")
def light() -> ClipEncoder:
    encoder = ClipEncoder.from_pretrained("tiny")
    assert isinstance(encoder._deferred, DeferredClip)
    return encoder


@pytest.fixture(scope="module")
def full() -> ClipEncoder:
    encoder = ClipEncoder.from_pretrained("tiny")
    encoder.model  # noqa: B018
    assert encoder._deferred is None
    return encoder


def test_tokens(light):
    import open_clip

    assert isinstance(light.tokenizer, LightTokenizer)
    oracle = open_clip.SimpleTokenizer(context_length=24)
    for phrase in PHRASES + OTHERS:
        assert torch.equal(light.tokenizer([phrase]), oracle([phrase])), phrase
    assert torch.equal(light.tokenizer(PHRASES), oracle(PHRASES))
    assert light.tokenizer.bpe_ranks == oracle.bpe_ranks == light.tokenizer._ranks
    assert light.tokenizer._ids == oracle.encoder


def test_plain_phrases_take_no_other_tokenizer():
    def load():
        raise AssertionError("open_clip's tokenizer was asked for")

    tokenizer = LightTokenizer(24, load)
    assert tokenizer(PHRASES).shape == (len(PHRASES), 24)
    with pytest.raises(AssertionError, match="was asked for"):
        tokenizer(["café"])


def test_text_embeddings_are_equal(light, full):
    phrases = [phrase for phrase in PHRASES + OTHERS if phrase]
    assert torch.equal(light.encode_text(phrases), full.encode_text(phrases))
    assert light._deferred is not None, "phrases built the whole model"


def test_everything_else_builds_the_model(full):
    encoder = ClipEncoder.from_pretrained("tiny")
    assert (encoder.image_size, encoder.mean, encoder.std) == (
        full.image_size,
        full.mean,
        full.std,
    )
    assert (encoder.device, encoder.dtype) == (full.device, full.dtype)
    encoder.to_dtype(torch.bfloat16)
    assert encoder.dtype == torch.bfloat16
    encoder.to_dtype(torch.float32)
    crops = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    assert torch.equal(encoder.encode_crops(crops), full.encode_crops(crops))
    assert encoder._deferred is None
    assert encoder.model.state_dict().keys() == full.model.state_dict().keys()


@torch.no_grad()
def test_the_backbone_is_that_of_timm():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    oracle = timm.create_model(EFFICIENTNET_LITE0, pretrained=False, features_only=True).eval()
    for name, tensor in oracle.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and tensor.ndim == 1:
            tensor.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
    ours = EfficientNetLite0().eval()
    ours.load_state_dict(oracle.state_dict())
    assert ours.feature_info.reduction() == oracle.feature_info.reduction()
    assert ours.feature_info.channels() == oracle.feature_info.channels()
    # Odd sides, too: padding depends on them.
    for size in ((64, 64), (75, 98)):
        pixels = torch.randn(2, 3, *size)
        pairs = list(zip(ours(pixels), oracle(pixels), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs) and pairs[0][0].std() > 0.01
    for network in (ours, oracle):
        network.train()(torch.ones(2, 3, 64, 64))
    assert all(
        torch.equal(ours.state_dict()[name], tensor) for name, tensor in oracle.state_dict().items()
    ), "training mode counts other averages"


def test_loading_and_a_phrase_import_none_of_them():
    program = """
import sys
from textsam import TextSAM
view = TextSAM.from_pretrained("tiny").open("examples/bus.jpg")
assert len(view.segment(text="wheel"))
slow = {"open_clip", "timm", "transformers", "torchvision", "torch._dynamo", "sympy", "ftfy"}
print(sorted(slow & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]"]
