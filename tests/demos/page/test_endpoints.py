"""The endpoints, as docs/explorer.md shows them and as agents see them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from demos.explorer.photo_cache import PhotoCache
from textsam.values.rle import rle_area, rle_from_json

gradio_client = pytest.importorskip("gradio_client")

_PAGE = "http://127.0.0.1:7860/"


@pytest.fixture(scope="module")
def url(server: tuple[str, PhotoCache]) -> str:
    return server[0]


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return gradio_client.Client(url, verbose=False)


def fences(repo: Path, language: str) -> list[str]:
    text = (repo / "docs" / "explorer.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_python_of_the_docs_runs(
    url: str, repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = fences(repo, "python")
    assert _PAGE in program
    monkeypatch.chdir(repo)
    names: dict[str, Any] = {}
    exec(program.replace(_PAGE, url), names)
    assert [mask["label"] for mask in names["found"]["masks"]] == ["wheel", "wheel"]
    assert names["found"]["presence"]["giraffe"] < 0.1
    assert len(names["clicked"]["masks"]) == 3
    with Image.open(names["picture"]) as picture:
        assert picture.size == (640, 427)
    assert "wheel" in capsys.readouterr().out


def test_the_curl_of_the_docs_runs(url: str, repo: Path) -> None:
    (shell,) = (text for text in fences(repo, "bash") if "curl" in text)
    done = subprocess.run(
        ["bash", "-euc", shell.replace(_PAGE, url)],
        cwd=repo,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "event: complete" in done.stdout, done.stdout
    (found,) = json.loads(done.stdout.split("event: complete\ndata: ")[1].splitlines()[0])
    areas = [rle_area(rle_from_json(mask["rle"])) for mask in found["masks"]]
    assert areas == [mask["area"] for mask in found["masks"]] and len(areas) == 2


def test_everything_and_reasons(client: Any, repo: Path, small_bus: Path) -> None:
    photo = gradio_client.handle_file(str(repo / "examples" / "bus.jpg"))
    why = client.predict(photo=photo, text="giraffe", api_name="/explain")
    assert why["phrases"][0]["gate"] == "presence" and "giraffe" in why["text"]
    small = gradio_client.handle_file(str(small_bus))
    assert len(client.predict(photo=small, api_name="/everything")["masks"]) > 1


def test_errors_are_the_librarys_sentences(client: Any, repo: Path, tmp_path: Path) -> None:
    photo = gradio_client.handle_file(str(repo / "examples" / "bus.jpg"))
    words = tmp_path / "words.jpg"
    words.write_text("no photo")
    for arguments, said in (
        ({"photo": photo}, "Type what to find"),
        ({"photo": photo, "text": "bus", "strategy": "prompt", "exclude": "cat"}, "exclude"),
        ({"photo": photo, "points": [[9000, 1]]}, "9000"),
        ({"photo": gradio_client.handle_file(str(words)), "text": "bus"}, "not an image"),
    ):
        with pytest.raises(Exception, match=said) as caught:
            client.predict(api_name="/segment", **arguments)
        assert "Traceback" not in str(caught.value)


def test_only_the_four_endpoints_are_public(client: Any) -> None:
    shown = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(shown) == {"/segment", "/overlay", "/explain", "/everything"}
    names = [parameter["parameter_name"] for parameter in shown["/segment"]["parameters"]]
    assert names[:3] == ["photo", "text", "exclude"]


def test_agents_see_what_each_argument_means(url: str) -> None:
    with urllib.request.urlopen(f"{url}gradio_api/mcp/schema") as answer:
        tools = {tool["name"]: tool for tool in json.load(io.TextIOWrapper(answer))}
    assert {name.rpartition("_")[2] for name in tools} == {
        "segment",
        "overlay",
        "explain",
        "everything",
    }
    segment = next(tool for name, tool in tools.items() if name.endswith("segment"))
    assert "COCO RLE" in segment["description"]
    assert "pixels" in json.dumps(segment["inputSchema"]["properties"]["box"])
