"""Templates: names, single templates, several, and what is refused."""

import pytest

from textsam.clip.encoder import TEMPLATES, resolve_templates
from textsam.errors import PromptError


def test_every_named_set_is_valid() -> None:
    for name, templates in TEMPLATES.items():
        assert resolve_templates(name) == templates
        assert resolve_templates(templates) == templates


def test_none_is_the_phrase_alone() -> None:
    assert resolve_templates(None) == ("{}",)


def test_one_template_or_several() -> None:
    assert resolve_templates("a {}") == ("a {}",)
    assert resolve_templates(["a {}", "the {}."]) == ("a {}", "the {}.")


@pytest.mark.parametrize("bad", ["phto", [], ["a photo"], ["{} and {}"], [3], ["a {}", ""]])
def test_bad_templates_are_refused(bad: object) -> None:
    with pytest.raises(PromptError):
        resolve_templates(bad)  # type: ignore[arg-type]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(PromptError, match="imagenet7"):
        resolve_templates("imagenet")
