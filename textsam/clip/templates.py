"""Text templates: the sentences that a phrase is put into before CLIP embeds it.

CLIP was trained on captions, so "a photo of a wheel" is closer to its training data than "wheel" is
(arXiv 2103.00020, Section 3.1.4). The embeddings of several templates are averaged. The paper of
Segment Anything does not say which templates it used.
"""

from __future__ import annotations

from collections.abc import Sequence

from textsam.errors import PromptError

__all__ = ["TEMPLATES", "fill_templates", "resolve_templates"]

_SLOT = "{}"

TEMPLATES: dict[str, tuple[str, ...]] = {
    # The phrase as it is typed: the default for models that name no templates.
    "plain": ("{}",),
    "photo": ("a photo of a {}.",),
    # The seven templates that OpenAI's notebook "Prompt Engineering for ImageNet" found to suffice.
    "imagenet7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    # For crops around masks, which show parts and cut-out things more often than scenes.
    "crop": (
        "{}",
        "a photo of a {}.",
        "a close-up photo of a {}.",
        "a cropped photo of the {}.",
        "part of an image that shows a {}.",
    ),
}


def resolve_templates(templates: str | Sequence[str] | None) -> tuple[str, ...]:
    """Look up or check templates.

    Args:
        templates: A name in `TEMPLATES`, one template, several templates, or None for `"plain"`.

    Raises:
        PromptError: There is no template, a name is unknown, or a template does not contain `{}`
            exactly once.
    """
    if templates is None:
        return TEMPLATES["plain"]
    if isinstance(templates, str):
        if templates in TEMPLATES:
            return TEMPLATES[templates]
        if _SLOT not in templates:
            raise PromptError(
                f"templates={templates!r} is neither a template nor the name of a set; type a "
                f"template with one {{}}, or one of {', '.join(map(repr, TEMPLATES))}"
            )
        templates = (templates,)
    resolved = tuple(templates)
    if not resolved:
        raise PromptError('templates is empty; wanted at least one, e.g. ("a photo of a {}.",)')
    for template in resolved:
        if not isinstance(template, str) or template.count(_SLOT) != 1:
            raise PromptError(
                f"template {template!r} must be a string that contains {{}} exactly once, "
                'e.g. "a photo of a {}."'
            )
    return resolved


def fill_templates(phrase: str, templates: Sequence[str]) -> list[str]:
    """Put a phrase into each template."""
    # Not str.format: braces in the phrase are ordinary characters.
    return [template.replace(_SLOT, phrase) for template in templates]
