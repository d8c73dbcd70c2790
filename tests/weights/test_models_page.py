"""docs/models.md: its table is that of the library, and its code runs as it stands.

The hub is one on this machine, in which every repository that the page names holds a small random
network in the format of the real one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.detector_folders import write_detector
from tests.modeling.hub_cores import write_core
from tests.modeling.huggingface.hub_folders import write_clipseg, write_sam3
from tests.test_readme import as_program, read_fences
from tests.weights.loopback_hub import LoopbackHub
from tests.weights.test_hub import small_sam
from textsam import TextSAM, segment
from textsam.weights.model_table import MODELS, ModelEntry
from textsam.weights.released_names import to_official

PHOTO = "examples/bus.jpg"


def table_row(entry: ModelEntry) -> str:
    """A row of the page's table."""
    asks = ["phrases"] if "text" in entry.asks else []
    parts = " + ".join(f"`{part.id}`" for part in entry.repositories)
    licence = f"{entry.license}, gated" if entry.gated else entry.license
    parameters = "" if entry.parameters is None else f"{entry.parameters:.0f} M"
    cells = (
        *(f"`{entry.name}`", ", ".join([*asks, "clicks"]), parts, licence, parameters),
        "" if entry.megabytes is None else f"{entry.megabytes} MB",
    )
    return f"| {' | '.join(cells)} |"


def write_sam_hq(folder: Path) -> Path:
    """A small SAM-HQ."""
    import transformers

    torch.manual_seed(0)
    config = transformers.SamHQConfig(
        vision_config=transformers.SamHQVisionConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=64,
            window_size=2,
            global_attn_indexes=[0, 1],
            mlp_dim=192,
        ),
        prompt_encoder_config=transformers.SamHQPromptEncoderConfig(image_size=64),
        mask_decoder_config=transformers.SamHQMaskDecoderConfig(vit_dim=48),
    )
    transformers.SamHQModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small random networks for the hub ids of the table."""
    root = tmp_path_factory.mktemp("models")
    cores = {"yonigozlan/EdgeTAM-hf": "edgetam"}
    cores |= {
        f"facebook/sam2.1-hiera-{size}": "sam2_video" for size in ("tiny", "small", "base-plus")
    }
    detectors = {
        "IDEA-Research/grounding-dino-tiny": "grounding-dino",
        "google/owlv2-base-patch16-ensemble": "owlv2",
        "omlab/omdet-turbo-swin-tiny-hf": "omdet-turbo",
    }
    made = {}
    for number, (name, kind) in enumerate((cores | detectors).items()):
        made[name] = root / str(number)
        (write_core(kind, made[name]) if name in cores else write_detector(made[name], kind))
    made["CIDAS/clipseg-rd64-refined"] = write_clipseg(root / "clipseg")
    made["facebook/sam3"] = write_sam3(root / "sam3")
    made["syscv-community/sam-hq-vit-base"] = write_sam_hq(root / "sam-hq")
    small_sam(root / "sam", 0)
    made["facebook/sam-vit-base"] = root / "sam"
    return made


@pytest.fixture
def full_hub(
    hub: LoopbackHub,
    folders: dict[str, Path],
    tmp_path: Path,
    repo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> LoopbackHub:
    """A hub with all of them, and the example photos in the current folder."""
    for name, folder in folders.items():
        hub.add(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    shutil.copytree(repo / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    state = to_official(TextSAM.from_pretrained(folders["facebook/sam-vit-base"]).sam.state_dict())
    torch.save({"model": state, "optimizer": {}}, "medsam_vit_b.pth")
    torch.save({"model_state": {f"sam.{k}": v for k, v in state.items()}, "epoch": 3}, "best.pt")
    return hub


def test_the_table_is_that_of_the_library(repo: Path) -> None:
    page = (repo / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    head = page.index("|---|---|---|---|---|---|")
    rows = page[head + 1 : page.index("", head)]
    assert rows == [table_row(entry) for entry in MODELS]


def test_the_code_of_the_page_runs(full_hub: LoopbackHub, repo: Path) -> None:
    page = (repo / "docs" / "models.md").read_text(encoding="utf-8")
    with torch.compiler.set_stance("force_eager"):  # compiling would take a minute
        exec(compile(as_program(read_fences(page)), "docs/models.md", "exec"), {})
    assert "model.safetensors" in full_hub.fetched()


@pytest.mark.parametrize(
    "name",
    [
        *("sam-vit-base", "sam2.1-tiny", "edgetam", "grounded-sam2", "owlv2-sam", "omdet-sam"),
        *("clipseg-sam", "sam3"),
    ],
)
def test_a_name_loads_and_answers(full_hub: LoopbackHub, name: str) -> None:
    """Each kind of model by its name, once over the network and once without."""
    for options in ({"dtype": "bfloat16"}, {"local_files_only": True}):
        model = TextSAM.from_pretrained(name, **options)
        view = model.open(PHOTO)
        assert len(view.segment(points=[(300, 200)])) > 0
        prediction = view.predict(box=(60, 40, 500, 420))
        assert prediction.logits.dtype == prediction.iou.dtype == "float32"
        if name not in ("sam-vit-base", "sam2.1-tiny", "edgetam"):
            found = view.segment(text=["wheel", "door"])
            assert found.scores.dtype == "float32"
            assert {answer.phrase for answer in found.answers} == {"wheel", "door"}


def test_every_face_takes_the_names(full_hub: LoopbackHub) -> None:
    """Commands, the index, jobs and evaluations load by the same function."""
    from typer.testing import CliRunner

    from textsam.cli.app import app
    from textsam.search.embed import Embedder
    from training.evaluation.command import load_model

    options = ["-t", "wheel", "--model", "clipseg-sam", "--device", "auto", "-o", "wheels.json"]
    done = CliRunner().invoke(app, ["segment", PHOTO, *options])
    assert done.exit_code == 0, done.output
    assert Path("wheels.json").is_file()
    assert Embedder.from_pretrained("sam2.1-tiny").spaces["sam"].model.endswith("hiera-tiny")
    assert load_model("edgetam").name == "yonigozlan/EdgeTAM-hf"
    assert len(segment(PHOTO, points=[(300, 200)], model="sam-vit-base")) > 0
    told = CliRunner().invoke(app, ["segment", PHOTO, "-t", "wheel", "--model", "clipsegsam"])
    assert told.exit_code == 1
    assert "Did you mean 'clipseg-sam'" in told.output
