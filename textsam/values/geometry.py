"""Coordinate frames, windows and boxes: original pixels and model pixels.

The two frames of a prompt. *Original*: the H x W pixels of the image. *Model*: the square of side
`image_size` that the network sees. The image lies in its top left corner, with its long side
resized to the side of the square and padding at the bottom and right (Segment Anything, arXiv
2304.02643, Appendix A; rounded as `ResizeLongestSide` in the released code). A *stretched* frame
has no padding: SAM 2 and later (arXiv 2408.00714) resize each side to the side of the square.

Coordinates are continuous and (x, y): pixel (0, 0) covers [0, 1) x [0, 1). Boxes are half-open
(x0, y0, x1, y1): the box of pixel (0, 0) alone is (0, 0, 1, 1), and its area is 1. Sizes are
(height, width).

Functions take numpy arrays or torch tensors and return the same kind, device and floating dtype.
`import textsam` must not load torch, so that it is only imported where a tensor proves that it is
loaded already.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs


ArrayT = TypeVar("ArrayT", NDArray[Any], "torch.Tensor")


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Whether a value is a torch tensor, without importing torch."""
    # A tensor can only exist if torch has been imported.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def as_array(values: Any) -> NDArray[Any]:
    """A numpy array of a list, an array, or a tensor on any device."""
    if is_tensor(values):
        detached = values.detach().cpu()
        # numpy has no bfloat16.
        values = (detached.float() if detached.is_floating_point() else detached).numpy()
    array: NDArray[Any] = np.asarray(values)
    return array


class Window(NamedTuple):
    """A half-open rectangle of whole original pixels."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def length(self) -> int:
        """The long side."""
        return max(self.x1 - self.x0, self.y1 - self.y0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the window's rows and columns in an array (H, W, ...)."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def shared(self, other: Window) -> Window | None:
        """The intersection with another window; None if they do not overlap."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Window(x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None

    def contains(self, other: Window) -> bool:
        """Whether another window lies inside this one."""
        return self.shared(other) == other


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How one original image lies in the square that the model sees.

    Attributes:
        height: H, original pixels.
        width: W, original pixels.
        image_size: Side of the model's square, model pixels (1024 in the paper).
        stretched: Whether the image fills the square instead of keeping its aspect.

    Raises:
        ValueError: A side is not a positive integer.
    """

    height: int
    width: int
    image_size: int
    stretched: bool = False

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("height", "width", "image_size"):
            side = getattr(self, name)
            if not isinstance(side, Integral) or isinstance(side, bool) or side < 1:
                raise ValueError(
                    f"Frame: {name}={side!r}; wanted a positive integer number of pixels, e.g. "
                    "Frame(height=480, width=640, image_size=1024)"
                )
            # A numpy integer could overflow or fail to be written as JSON much later.
            object.__setattr__(self, name, int(side))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the original image."""
        return self.height, self.width

    @property
    def resized(self) -> tuple[int, int]:
        """(h, w) of the image in the square, model pixels, each at least 1."""
        if self.stretched:
            return self.image_size, self.image_size
        # Each at least 1: a panorama of 10,000 x 1 pixels would round to no rows at all.
        scale = self.image_size / max(self.height, self.width)
        # Rounded as in `ResizeLongestSide.get_preprocess_shape` of the released code.
        return (
            max(1, int(self.height * scale + 0.5)),
            max(1, int(self.width * scale + 0.5)),
        )

    @property
    def padding(self) -> tuple[int, int]:
        """(bottom, right) padding that fills the square, model pixels."""
        h, w = self.resized
        return self.image_size - h, self.image_size - w

    def covered(self, size: int) -> tuple[int, int]:
        """Rows and columns, each at least 1, that the image covers of size x size cells."""
        h, w = self.resized
        share = size / self.image_size
        return max(1, round(h * share)), max(1, round(w * share))

    def points_to_model(self, points: ArrayT) -> ArrayT:
        """Points (..., 2) from original to model pixels: x times w/W, y times h/H."""
        h, w = self.resized
        return _scale(points, w / self.width, h / self.height, last=2)

    def points_to_original(self, points: ArrayT) -> ArrayT:
        """Points (..., 2) from model to original pixels; the inverse of `points_to_model`."""
        h, w = self.resized
        return _scale(points, self.width / w, self.height / h, last=2)

    def boxes_to_model(self, boxes: ArrayT) -> ArrayT:
        """Half-open boxes (..., 4) from original to model pixels."""
        h, w = self.resized
        return _scale(boxes, w / self.width, h / self.height, last=4)

    def boxes_to_original(self, boxes: ArrayT) -> ArrayT:
        """Boxes (..., 4) from model to original pixels; the inverse of `boxes_to_model`."""
        h, w = self.resized
        return _scale(boxes, self.width / w, self.height / h, last=4)


def boxes_from_xywh(boxes: ArrayT) -> ArrayT:
    """COCO's (x, y, width, height) to half-open (x0, y0, x1, y1); shape (..., 4), dtype kept."""
    boxes = _checked(boxes, 4, "boxes (x, y, width, height)")
    out = _copy(boxes)
    out[..., 2:] = boxes[..., :2] + boxes[..., 2:]
    return out


def boxes_to_xywh(boxes: ArrayT) -> ArrayT:
    """Half-open (x0, y0, x1, y1) to COCO's (x, y, width, height); shape (..., 4), dtype kept."""
    boxes = _checked(boxes, 4, "boxes (x0, y0, x1, y1)")
    out = _copy(boxes)
    out[..., 2:] = boxes[..., 2:] - boxes[..., :2]
    return out


def clip_boxes(boxes: ArrayT, size: tuple[int, int]) -> ArrayT:
    """Boxes (..., 4) inside an image (H, W); one that lies outside gets an area of 0."""
    height, width = size
    boxes = _checked(boxes, 4, "boxes (x0, y0, x1, y1)")
    out = _copy(boxes)
    out[..., 0::2] = boxes[..., 0::2].clip(0, width)
    out[..., 1::2] = boxes[..., 1::2].clip(0, height)
    return out


def mask_to_box(mask: ArrayT) -> ArrayT:
    """Smallest half-open box (..., 4) int64 of masks (..., H, W) bool; zeros for an empty mask.

    Raises:
        ValueError: The mask is not bool or has fewer than two axes.
    """
    if is_tensor(mask):
        import torch

        return torch.from_numpy(mask_to_box(as_array(mask))).to(mask.device)
    array: NDArray[Any] = np.asarray(mask)
    if array.dtype != np.bool_ or array.ndim < 2:
        raise ValueError(
            f"mask_to_box: got {array.dtype} of shape {array.shape}; wanted bool of shape "
            "(..., H, W). Type: mask_to_box(logits > 0)"
        )
    left, right = _span(np.any(array, axis=-2))
    top, bottom = _span(np.any(array, axis=-1))
    return np.stack([left, top, right, bottom], axis=-1)


def _span(line: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First true index and one past the last of (..., L), each (...); zeros if none is true."""
    length = line.shape[-1]
    if length == 0:  # argmax of an empty axis raises
        nothing = np.zeros(line.shape[:-1], dtype=np.int64)
        return nothing, nothing
    some = line.any(-1)
    first = np.where(some, line.argmax(-1), 0)
    end = np.where(some, length - line[..., ::-1].argmax(-1), 0)
    return first.astype(np.int64), end.astype(np.int64)


def _checked(values: ArrayT, last: int, what: str) -> ArrayT:
    """An array or tensor whose last axis has this length; sequences become arrays."""
    if not is_tensor(values):
        values = np.asarray(values)
    if values.ndim == 0 or values.shape[-1] != last:
        raise ValueError(f"got shape {tuple(values.shape)}; wanted {what}, shape (..., {last})")
    return values


def _scale(values: ArrayT, x: float, y: float, *, last: int) -> ArrayT:
    """Even positions of the last axis times x, odd ones times y; integers become float32."""
    values = _checked(values, last, "points (x, y)" if last == 2 else "boxes (x0, y0, x1, y1)")
    if is_tensor(values):
        out = values.clone() if values.is_floating_point() else values.float()
        return out * out.new_tensor([x, y] * (last // 2))
    floating = values if values.dtype.kind == "f" else values.astype(np.float32)
    scaled: NDArray[Any] = floating * np.asarray([x, y] * (last // 2), dtype=floating.dtype)
    return scaled


def _copy(values: ArrayT) -> ArrayT:
    return values.clone() if is_tensor(values) else values.copy()
