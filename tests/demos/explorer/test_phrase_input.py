from __future__ import annotations

import pytest

from demos.explorer.explorer import MAX_PHRASES, read_phrases
from textsam.errors import PromptError


@pytest.mark.parametrize(
    ("text", "unwanted", "expected"),
    [
        ("wheel", None, (["wheel"], [])),
        (" wheel ,window;door\nroof ", "", (["wheel", "window", "door", "roof"], [])),
        ("wheel, -steering wheel", None, (["wheel"], ["steering wheel"])),
        ("wheel, \N{EN DASH}tyre", "hub, -rim", (["wheel"], ["tyre", "hub", "rim"])),
        ("wheel, wheel,, ", "hub, hub", (["wheel"], ["hub"])),
        ("T-shirt, well-known  thing", None, (["T-shirt", "well-known thing"], [])),
    ],
)
def test_phrases_are_told_from_exclusions(
    text: str, unwanted: str | None, expected: tuple[list[str], list[str]]
) -> None:
    assert read_phrases(text, unwanted) == expected


@pytest.mark.parametrize("text", [None, "", " , ;\n", "-wheel", "--- , -"])
def test_nothing_to_find_says_what_to_type(text: str | None) -> None:
    with pytest.raises(PromptError, match="for example"):
        read_phrases(text)


def test_what_nobody_means_is_refused() -> None:
    with pytest.raises(PromptError, match="both to be found and excluded"):
        read_phrases("wheel", "wheel")
    with pytest.raises(PromptError, match="characters"):
        read_phrases("x" * 300)
    with pytest.raises(PromptError, match=f"at most {MAX_PHRASES}"):
        read_phrases(",".join(f"thing {n}" for n in range(MAX_PHRASES + 1)))
