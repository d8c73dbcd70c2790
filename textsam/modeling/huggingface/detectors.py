"""Zero-shot detectors of `transformers`: phrases -> boxes in a photo, with a score each.

    detector = Detector.from_pretrained("IDEA-Research/grounding-dino-tiny")
    photo = detector.read(image)  # (H, W, 3) uint8 RGB
    found = detector.find(photo, ["wheel", "front door"])
    found.boxes[found.own[:, 0]]  # of "wheel", best first

How a family wants its phrases is known to `families.py`. What a detector makes of the photo alone
is computed once and kept in the `DetectorPhoto`; a further phrase starts from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from textsam.errors import WeightsError
from textsam.modeling.huggingface.cores import no_progress_bars
from textsam.modeling.huggingface.families import FAMILIES, DetectorFamily
from textsam.modeling.huggingface.found_boxes import FoundBoxes, join_groups
from textsam.modeling.precision import set_encoder_dtype
from textsam.weights.hub import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Detector", "DetectorPhoto"]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorPhoto:
    """A photo as a detector reads it; made by `Detector.read`.

    Attributes:
        size: (H, W), original pixels.
        inputs: The model's tensors of it, with a batch axis of 1 ("pixel_values", ...).
        kept: Output of the parts of the network that see no phrase, after the first phrase.
        last: The last phrases and their boxes, for a second look at other levels.
    """

    size: tuple[int, int]
    inputs: dict[str, Tensor]
    kept: dict[str, Any] = field(default_factory=dict)
    last: dict[tuple[str, ...], FoundBoxes] = field(default_factory=dict)


class Detector:
    """An `AutoModelForZeroShotObjectDetection` with the prompt rules of its family.

    Attributes:
        model: The network, in evaluation mode.
        processor: Its image processor and tokenizer.
        name: What it was loaded as.
        family: `model_type` of its config, e.g. "grounding-dino".
        box_level: Usual minimum of the score of a box.
        text_level: Usual minimum of the score of a phrase for a box.
    """

    def __init__(self, model: Any, processor: Any, *, name: str = "unnamed") -> None:
        self.family = str(model.config.model_type)
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise WeightsError(f"{name} is a {self.family} model; wanted a detector: {known}")
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self._rules: DetectorFamily = FAMILIES[self.family](model, processor)
        self.box_level = self._rules.box_level
        self.text_level = self._rules.text_level
        # Per thread: the explorer asks one detector about several photos at once.
        self._photo_of_thread = threading.local()
        for tower in self._rules.towers:
            self._keep_output(tower)

    def __repr__(self) -> str:
        return f"Detector({self.name!r}, {self.family})"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load a detector of the hub, or a folder that a model and its processor were saved to.

        Args:
            name: A folder or a hub id ("IDEA-Research/grounding-dino-tiny").
            revision: Branch, tag or commit of the hub's repository.
            local_files_only: Do not use the network.

        Raises:
            WeightsError: There is no such model, it is no zero-shot detector, or its files are
                damaged or incomplete.
        """
        folder = fetch(name, revision=revision, local_files_only=local_files_only)
        from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

        # Code of a repository is never run; without False transformers asks on a terminal.
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            load: Any = AutoProcessor.from_pretrained
            with no_progress_bars():
                processor = load(folder, **options)
                model, report = AutoModelForZeroShotObjectDetection.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    **options,
                )
        except Exception as error:  # of many types, by the part that is missing or damaged
            raise WeightsError(
                f"{name} is not a zero-shot detector that transformers reads "
                f"({type(error).__name__}: {' '.join(str(error).split())[:300]}); wanted a folder "
                f"or a hub id of {', '.join(FAMILIES)}"
            ) from error
        if missing := sorted(report["missing_keys"]):
            raise WeightsError(
                f"{name} lacks {len(missing)} weights of its network, e.g. {missing[0]}: "
                "download or copy it again"
            )
        return cls(model, processor, name=str(name))

    def save(self, folder: str | Path) -> Path:
        """Write a folder that `from_pretrained` reads."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return Path(folder)

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return torch.device(self.model.device)

    def to(self, target: str | torch.device | torch.dtype) -> Self:
        """Move the network, or change the type of what sees the photo alone; in place."""
        if isinstance(target, torch.dtype):
            for tower in self._rules.halved or self._rules.towers:
                set_encoder_dtype(self.model.get_submodule(tower), target)
            return self
        self.model.to(target)
        self._rules.forget()
        return self

    def read(self, image: NDArray[np.uint8]) -> DetectorPhoto:
        """Resize and normalise a photo (H, W, 3) uint8 RGB as the model's own processor does."""
        inputs = self.processor.image_processor(images=[image], return_tensors="pt")
        names = ("pixel_values", "pixel_mask")
        tensors = {name: inputs[name] for name in names if name in inputs}
        return DetectorPhoto(size=(image.shape[0], image.shape[1]), inputs=tensors)

    def find(self, photo: DetectorPhoto, phrases: Sequence[str]) -> FoundBoxes:
        """Boxes of a photo that was read, for phrases as typed.

        Phrases compete: as in the model's own post-processing each box of Grounding DINO and OWL
        belongs to its best phrase.

        Raises:
            PromptError: A phrase has no letter or digit, or is longer than the model reads.
        """
        key = tuple(phrases)
        if key not in photo.last:
            with self._keeping(photo):
                [found] = self._find([photo], phrases)
            photo.last.clear()  # one answer, however many phrases a session asks
            photo.last[key] = found
        return photo.last[key]

    def find_many(
        self, photos: Sequence[DetectorPhoto], phrases: Sequence[str]
    ) -> list[FoundBoxes]:
        """Boxes of several photos, in as few runs as their shapes allow; `find` has them then.

        Photos are not padded to a common shape, so a batch gives what one photo at a time gives.
        """
        shapes: dict[tuple[int, ...], list[DetectorPhoto]] = {}
        for photo in photos:
            shapes.setdefault(tuple(photo.inputs["pixel_values"].shape), []).append(photo)
        for group in shapes.values():
            for photo, found in zip(group, self._find(group, phrases), strict=True):
                photo.last.clear()
                photo.last[tuple(phrases)] = found
        return [photo.last[tuple(phrases)] for photo in photos]

    @torch.no_grad()
    def _find(self, photos: Sequence[DetectorPhoto], phrases: Sequence[str]) -> list[FoundBoxes]:
        """Boxes of photos of one shape."""
        prompts = [self._rules.prompt(phrase) for phrase in phrases]
        # "Cat" and "cat" are one prompt, and the answer to both.
        distinct = list(dict.fromkeys(prompts))
        columns = [distinct.index(prompt) for prompt in prompts]
        parts = [self._run(photos, group) for group in self._rules.groups(distinct)]
        joined = [join_groups(list(found)) for found in zip(*parts, strict=True)]
        return [
            replace(item, text_scores=item.text_scores[:, columns], own=item.own[:, columns])
            for item in joined
        ]

    def _run(self, photos: Sequence[DetectorPhoto], prompts: Sequence[str]) -> list[FoundBoxes]:
        """One run of the network: photos of one shape, prompts within its text budget."""
        images = {
            name: torch.cat([photo.inputs[name] for photo in photos]) for name in photos[0].inputs
        }
        text = self._rules.text(prompts)
        # `text` is of one photo; every photo is asked the same.
        inputs = {name: torch.cat([value] * len(photos)) for name, value in text.inputs.items()}
        moved = {name: value.to(self.device) for name, value in {**images, **inputs}.items()}
        output = self.model(**moved)
        return self._rules.boxes(output, text, [photo.size for photo in photos])

    @contextmanager
    def _keeping(self, photo: DetectorPhoto) -> Iterator[None]:
        """Within this context the towers of this thread keep their output in the photo."""
        self._photo_of_thread.kept = photo.kept
        try:
            yield
        finally:
            self._photo_of_thread.kept = None

    def _keep_output(self, name: str) -> None:
        """Let a submodule take its output from the photo if it has run on it before."""
        tower = self.model.get_submodule(name)
        run: Callable[..., Any] = tower.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            kept = getattr(self._photo_of_thread, "kept", None)
            if kept is None:
                return run(*args, **kwargs)
            if name not in kept:
                kept[name] = run(*args, **kwargs)
            return _copied(kept[name])

        # The network calls its own submodule, so that nothing else of its forward is repeated here.
        tower.forward = forward


def _copied(value: Any) -> Any:
    """New lists and tuples around the same tensors: Grounding DINO appends to its backbone's."""
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    return value
