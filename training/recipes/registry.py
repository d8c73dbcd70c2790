"""All recipes by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from .base import Recipe
from .debug import DebugRecipe
from .finetune import FinetuneRecipe
from .sam import SamVitB, SamVitH, SamVitL
from .text_pathway import TextPathwayRecipe
from .tiny.recipe import TinyClipRecipe, TinyRecipe

RECIPES: Mapping[str, type[Recipe]] = {
    recipe.NAME: recipe
    for recipe in (
        SamVitH,
        SamVitL,
        SamVitB,
        TextPathwayRecipe,
        FinetuneRecipe,
        TinyClipRecipe,
        TinyRecipe,
        DebugRecipe,
    )
}


def find_recipe(name: str) -> type[Any]:
    """The recipe of that name; hyphens count as underscores."""
    known = name.replace("-", "_")
    if known in RECIPES:
        return RECIPES[known]
    near = difflib.get_close_matches(known, RECIPES, n=1, cutoff=0.4)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no recipe {name!r}.{meant} There are {', '.join(RECIPES)}")


def summary(recipe: type[Recipe]) -> str:
    """The first line of a recipe's docstring."""
    return (recipe.__doc__ or "").strip().partition("\n")[0]
