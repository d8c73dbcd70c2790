"""What a task is asked of: a model and an image, or a photo that is open already."""

from __future__ import annotations

from textsam.errors import PromptError
from textsam.inference.model import TextSAM
from textsam.inference.view import ImageView
from textsam.values.images import ImageSource

__all__ = ["opened"]


def opened(model: TextSAM | ImageView, image: ImageSource | None) -> ImageView:
    """The photo, encoded.

    Args:
        model: A model, with an image; or an open photo, without.
        image: Whatever `textsam.load_image` takes.

    Raises:
        PromptError: An image missing or too many, or neither a model nor a photo.
        ImageError: If it is no image.
    """
    if isinstance(model, ImageView):
        if image is not None:
            raise PromptError(
                "an open photo and an image were given; wanted the photo alone, or a model and an "
                "image"
            )
        return model
    if not isinstance(model, TextSAM):
        raise PromptError(
            f"got {type(model).__name__}; wanted a TextSAM and an image, or the photo that "
            "model.open(image) gives (not a tiled one)"
        )
    if image is None:
        raise PromptError("a model was given and no image; give image=... too")
    return model.open(image)
