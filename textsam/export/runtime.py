"""Run an exported model with onnxruntime, numpy and Pillow: no torch.

    from textsam.export.runtime import load

    model = load("tiny_onnx")
    with model.open("bus.jpg") as view:  # encoded once
        wheels = view.segment(text="wheel")
        door = view.segment(points=[(410, 220)])
    wheels.masks, wheels.boxes, wheels.scores

Answers are those of `TextSAM.segment`: by the same verdicts, calibration and zoom-in.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from textsam.errors import PromptError, WeightsError, require
from textsam.export.clip_tokens import TOKENIZER_FILE, PhraseTokenizer
from textsam.export.phrase_masks import map_masks, mask_odds, peak_odds, sigmoid
from textsam.inference.photo.zoom_plan import (
    OUTSIDE,
    Look,
    WindowCache,
    plan_looks,
    prompt_inside,
    within_box,
)
from textsam.values.calibration import read_curves
from textsam.values.cells import area_resize, bilinear_resize, to_photo_size
from textsam.values.colours import colour_match, colour_shares_inside
from textsam.values.geometry import Frame, Window, mask_to_box
from textsam.values.images import ImageSource, load_image, resize_image
from textsam.values.judge import Levels, MaskNumbers, StrategyCurves, is_present, judge_mask
from textsam.values.prompts import (
    ArrayLike,
    ColourPhrase,
    Prompt,
    make_prompt,
    normalize_phrases,
    plain_phrase,
    split_colour,
)
from textsam.values.settings import FocusSettings, TextSettings

__all__ = ["ExportedModel", "ExportedView", "RuntimeResult", "load"]

Floats: TypeAlias = NDArray[np.float32]

_FORMAT, _VERSION = "textsam-onnx", 1
_MASK_LOGIT = 8.0  # of a mask as a prompt
_BOX_START, _BOX_END, _NOT_A_POINT = 2, 3, -1


@dataclass(frozen=True, kw_only=True, eq=False)
class RuntimeResult:
    """Masks of one query, best first.

    Attributes:
        masks: (K, H, W) bool, original pixels.
        scores: (K,) probability that the phrase describes the mask; NaN without a phrase.
        iou: (K,) predicted IoU.
        stability: (K,) stability score.
        labels: The phrase of each mask; None without a phrase.
        presence: Probability that a phrase is in the photo at all, by phrase.
    """

    masks: NDArray[np.bool_]
    scores: Floats
    iou: Floats
    stability: Floats
    labels: tuple[str | None, ...]
    presence: dict[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of masks K."""
        return len(self.masks)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(K, 4) half-open boxes x0, y0, x1, y1, original pixels."""
        return mask_to_box(self.masks)


def load(
    folder: str | os.PathLike[str],
    *,
    threads: int | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> ExportedModel:
    """Open a folder that `textsam export` wrote.

    Args:
        folder: The folder.
        threads: Threads of one run; onnxruntime's choice by default.
        providers: Execution providers of onnxruntime, in order of preference.

    Raises:
        WeightsError: It is no such folder, of a newer version, or a file is missing.
        MissingExtraError: Without onnxruntime.
    """
    folder = Path(folder)
    path = folder / "textsam.json"
    if not path.is_file():
        raise WeightsError(
            f"{str(folder)!r} is no exported model: it has no {path.name}. "
            f"Type: textsam export tiny -o {folder}"
        )
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("format") != _FORMAT or config.get("version") != _VERSION:
        raise WeightsError(
            f"{path} has format {config.get('format')!r}, version {config.get('version')!r}; this "
            f"textsam reads {_FORMAT!r}, version {_VERSION}. Type: pip install -U textsam"
        )
    return ExportedModel(folder, config, threads=threads, providers=tuple(providers))


class ExportedModel:
    """An exported model; its graphs are opened when they are first needed.

    Attributes:
        folder: Where it lies.
        config: What `textsam.json` says.
        text_settings: Geometry of phrases.
        focus: When to zoom in, or None.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], *, threads: int | None, providers: Sequence[str]
    ) -> None:
        self.folder, self.config = folder, config
        self._threads, self._providers = threads, list(providers)
        self._sessions: dict[str, Any] = {}
        text, focus = config["text"] or {}, config["focus"]
        self.text_settings = TextSettings(**text.get("settings", {}))
        self.focus = None if focus is None else FocusSettings(**focus)

    def __repr__(self) -> str:
        return f"ExportedModel({self.config['name']!r}, {self.config['image_size']} px)"

    @cached_property
    def tokenizer(self) -> PhraseTokenizer:
        """Phrases -> `input_ids`."""
        return PhraseTokenizer.read(self.folder / TOKENIZER_FILE)

    def curves(self, phrase: str) -> StrategyCurves:
        """The calibration, with the phrase's own levels if it has some."""
        curves = read_curves(self.config["text"]["calibration"]["auto"])
        return curves.of(plain_phrase(phrase).casefold(), self.tokenizer.plain(phrase).casefold())

    def embed(self, phrases: Sequence[str]) -> Floats:
        """Embeddings (P, D) of phrases, unit and centred."""
        self.require_text()
        [embeddings] = self.run("text.onnx", {"input_ids": self.tokenizer(phrases)})
        return embeddings

    def require_text(self) -> None:
        """A `WeightsError` unless phrases give masks."""
        text = self.config["text"]
        if text is None or text["map_size"] is None:
            raise WeightsError(
                f"{self.folder} answers no phrases: it was exported without them, or its model "
                "makes no maps of phrases. Use points or a box; or type: textsam export tiny "
                f"-o {self.folder}"
            )

    def run(
        self, file: str, feeds: dict[str, NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> list[Floats]:
        """Run a graph for some or all outputs; a `WeightsError` if it is not in the folder."""
        if file not in self._sessions:
            runtime: Any = require("onnxruntime", "export")
            path = self.folder / file
            if not path.is_file():
                raise WeightsError(
                    f"{self.folder} has no {file}, which this needs. Type: textsam export "
                    f"{self.config['name']} -o {self.folder}"
                )
            options = runtime.SessionOptions()
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            self._sessions[file] = runtime.InferenceSession(
                str(path), options, providers=self._providers
            )
        session: Any = self._sessions[file]
        results: list[Floats] = session.run(outputs, feeds)
        return results

    def open(self, image: ImageSource) -> ExportedView:
        """Encode a photo once, for any number of queries; takes what `textsam.load_image` does."""
        return ExportedView(self, load_image(image))

    def segment(
        self,
        image: ImageSource,
        text: str | Sequence[str] | None = None,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | int | None = None,
        box: ArrayLike | None = None,
        threshold: float | None = None,
        multimask: bool | None = None,
    ) -> RuntimeResult:
        """Encode a photo and segment it; see `ExportedView.segment`."""
        return self.open(image).segment(
            text, points=points, labels=labels, box=box, threshold=threshold, multimask=multimask
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GridMask:
    """Logits of one mask on the decoder's grid; as `MaskLogits`, in numpy."""

    frame: Frame
    grids: Floats  # (n, m, m)
    windows: tuple[Window | None, ...] = (None,)
    weights: Floats | None = None
    box: Floats | None = None
    box_margin: float = 0.0

    def full_size(self) -> Floats:
        """(H, W) float32, original pixels."""
        logits = self._without_limit()
        if self.box is None:
            return logits
        return within_box(logits, self.box, margin=self.box_margin)

    def low_res(self) -> Floats:
        """(m, m) float32 in the padded model frame of the whole photo."""
        size = self.grids.shape[-1]
        logits = (
            self.grids[0]
            if self.windows == (None,)
            else _mask_prompt(self._without_limit(), self.frame, size)
        )
        if self.box is None:
            return logits
        cells = self.frame.boxes_to_model(self.box) * (size / self.frame.image_size)
        return within_box(logits, cells.reshape(4).astype(np.float32), margin=self.box_margin)

    def _without_limit(self) -> Floats:
        layers = [self._layer(*pair) for pair in zip(self.grids, self.windows, strict=True)]
        if self.weights is None:
            return layers[0]
        blended: Floats = np.tensordot(self.weights, np.stack(layers), axes=1)
        return blended

    def _layer(self, grid: Floats, window: Window | None) -> Floats:
        if window is None:
            return to_photo_size(grid, self.frame)
        frame = replace(self.frame, height=window.y1 - window.y0, width=window.x1 - window.x0)
        full = np.full(self.frame.size, OUTSIDE, np.float32)
        full[window.slices] = to_photo_size(grid, frame)
        return full


@dataclass(frozen=True, kw_only=True, eq=False)
class GridPrediction:
    """The decoder's four masks for one prompt, and their predicted IoU (4,)."""

    masks: tuple[GridMask, ...]
    iou: Floats


class ExportedView:
    """An encoded photo, for any number of queries.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        frame: The original and the model frame.
        features: What the encoder gave: `image_embeddings`, maybe `text_features`.
    """

    def __init__(self, model: ExportedModel, image: NDArray[np.uint8]) -> None:
        config = model.config
        self._model, self.image = model, image
        self.frame = Frame(
            height=image.shape[0], width=image.shape[1], image_size=config["image_size"]
        )
        self._maps: dict[str, tuple[Floats, Floats]] = {}
        mean, std = (np.array(config[f"pixel_{name}"], np.float32) for name in ("mean", "std"))
        height, width = self.frame.resized
        side = self.frame.image_size
        # Padding is zero after normalisation, not black.
        pixels = np.zeros((1, 3, side, side), np.float32)
        resized = resize_image(image, (height, width))
        pixels[0, :, :height, :width] = ((resized - mean) / std).transpose(2, 0, 1)
        names = ("image_embeddings", "text_features")
        outputs = model.run("encoder.onnx", {"pixel_values": pixels})
        self.features = dict(zip(names, outputs, strict=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._maps.clear()

    def segment(
        self,
        text: str | Sequence[str] | None = None,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | int | None = None,
        box: ArrayLike | None = None,
        threshold: float | None = None,
        multimask: bool | None = None,
    ) -> RuntimeResult:
        """Segment by phrases, or one object by points and a box, with or without a phrase.

        Args:
            text: A phrase or several.
            points: (N, 2) x, y, original pixels.
            labels: (N,) 1 on the object, 0 beside it.
            box: x0, y0, x1, y1, original pixels.
            threshold: Minimum probability of phrases and masks, in (0, 1); by default the levels
                of the model's calibration.
            multimask: Whether one object gets its three readings; by default for a lone point.

        Returns:
            Masks, maybe none.

        Raises:
            PromptError: Nothing to segment, a point outside the photo, an empty box, several
                phrases with a place, or another query that is invalid.
            WeightsError: Phrases for a model without maps of them.
        """
        phrases = [] if text is None else list(dict.fromkeys(normalize_phrases(text)))
        if threshold is not None and not 0 < threshold < 1:
            raise PromptError(f"threshold is {threshold!r}; wanted a probability, 0 to 1")
        if phrases:
            self._model.require_text()
        if points is None and box is None:
            if not phrases:
                raise PromptError(
                    'nothing to segment; type text="wheel", points=[(x, y)] or box=(x0, y0, x1, y1)'
                )
            return self._segment_phrases(phrases, threshold)
        if len(phrases) > 1:
            raise PromptError(f"{len(phrases)} phrases with points or a box; wanted one, or none")
        phrase = phrases[0] if phrases else None
        prompt = make_prompt(self.frame.size, text=phrase, points=points, labels=labels, box=box)
        if prompt.box is None and not (prompt.labels == 1).any():
            raise PromptError("no point is on the object: give one with label 1, or a box")
        return self._segment_object(prompt, multimask)

    def text_map(self, phrase: str) -> Floats:
        """Probability of a phrase at each pixel, (H, W)."""
        return sigmoid(to_photo_size(self._phrase(phrase)[1], self.frame))

    def _phrase(self, phrase: str) -> tuple[Floats, Floats]:
        """The embedding (1, D) of a phrase and its map (n, n) of log odds."""
        if phrase not in self._maps:
            embedding = self._model.embed([phrase])
            features = self.features["text_features"]
            feeds = {"text_features": features, "text_embedding": embedding}
            [maps] = self._model.run("text_map.onnx", feeds)
            self._maps[phrase] = embedding, maps[0]
        return self._maps[phrase]

    # --- phrases

    def _segment_phrases(self, phrases: Sequence[str], threshold: float | None) -> RuntimeResult:
        found, presence = [], {}
        for phrase in phrases:
            colour = self._colour(phrase)
            masks, presence[phrase] = self._phrase_masks(phrase, colour, threshold)
            found += [(phrase, *mask) for mask in masks]
        return RuntimeResult(
            masks=np.stack([mask for _, _, mask, _ in found])
            if found
            else np.zeros((0, *self.frame.size), np.bool_),
            scores=np.array([numbers.score for _, numbers, _, _ in found], np.float32),
            iou=np.array([iou for _, _, _, (iou, _) in found], np.float32),
            stability=np.array([stability for _, _, _, (_, stability) in found], np.float32),
            labels=tuple(phrase for phrase, *_ in found),
            presence=presence,
        )

    def _colour(self, phrase: str) -> ColourPhrase | None:
        if not self._model.text_settings.measure_colours:
            return None
        return split_colour(phrase, self._model.tokenizer.aliases)

    def _phrase_masks(
        self, phrase: str, colour: ColourPhrase | None, threshold: float | None
    ) -> tuple[list[tuple[MaskNumbers, NDArray[np.bool_], tuple[float, float]]], float]:
        """The masks that pass, with their numbers, predicted IoU and stability; the presence."""
        settings = self._model.text_settings
        name = phrase if colour is None else colour[1]
        embedding, logits = self._phrase(name)
        curves = self._model.curves(name)
        levels = curves.levels(threshold, quality=settings.min_quality, place=settings.threshold)
        rows, columns = self.frame.covered(logits.shape[-1])
        presence = curves.presence.probability({"peak": peak_odds(logits[:rows, :columns])})
        if not is_present(presence, levels):
            return [], presence
        size = self._model.config["mask_size"]
        found = map_masks(
            bilinear_resize(logits, (size, size)),
            self.frame.covered(size),
            lambda points, maps: self._decode_points(points, maps, embedding),
            curves=curves,
            levels=levels,
            settings=settings,
        )
        passed = []
        for item in found:
            full = to_photo_size(item.logits, self.frame)
            if (full > 0).any() and judge_mask(item.numbers, levels)[0] is None:
                passed.append((item.numbers, full > 0, (item.iou, stability_of(full))))
        if colour is not None:
            passed, presence = self._of_colour(passed, colour[0], presence, levels)
        return passed, presence

    def _of_colour(
        self, found: list[Any], colour: str, presence: float, levels: Levels
    ) -> tuple[list[Any], float]:
        """Those that have the colour; as `inference/strategies/coloured.py`."""
        matches = []
        for _, mask, _ in found:
            x0, y0, x1, y1 = mask_to_box(mask)
            shares = colour_shares_inside(self.image[y0:y1, x0:x1], mask[y0:y1, x0:x1])
            matches.append(colour_match(shares, colour))
        if not matches:
            return found, presence
        # Cubed, since a little of a colour is everywhere.
        presence *= max(matches) ** 3
        if not is_present(presence, levels):
            return [], presence
        kept = [item for item, match in zip(found, matches, strict=True) if match >= 1]
        return kept, presence

    def _decode_points(
        self, points: Floats, maps: Floats | None, embedding: Floats
    ) -> tuple[Floats, Floats]:
        """Mask 0 of one foreground point each, in cells, with the phrase."""
        size = self._model.config["mask_size"]
        count = len(points)
        coords = np.zeros((count, 2, 2), np.float32)
        coords[:, 0] = points * np.float32(self.frame.image_size / size)
        labels = np.tile(np.array([1, _NOT_A_POINT], np.float32), (count, 1))
        logits, iou = self._decode(coords, labels, maps, embedding=embedding)
        return logits[:, 0], iou[:, 0]

    # --- one object

    def _segment_object(self, prompt: Prompt, multimask: bool | None) -> RuntimeResult:
        prediction = self._predict(prompt)
        lone = len(prompt.points) == 1 and prompt.text is None and prompt.box is None
        order = [0]
        if lone if multimask is None else multimask:
            order = [1 + int(i) for i in np.argsort(-prediction.iou[1:], kind="stable")]
        logits = np.stack([prediction.masks[k].full_size() for k in order])
        kept = [i for i, mask in enumerate(logits) if (mask > 0).any()]
        masks = logits[kept] > 0
        scores = np.full(len(kept), np.nan, np.float32)
        if prompt.text is not None:
            probability, score = self.text_map(prompt.text), self._model.curves("").score
            for k, mask in enumerate(masks):
                inside = probability[mask]
                scores[k] = score.probability(mask_odds(float(inside.mean()), float(inside.max())))
        return RuntimeResult(
            masks=masks,
            scores=scores,
            iou=prediction.iou[order][kept],
            stability=np.array([stability_of(mask) for mask in logits[kept]], np.float32),
            labels=(prompt.text,) * len(kept),
        )

    def _predict(self, prompt: Prompt) -> GridPrediction:
        focus = self._model.focus
        plan = plan_looks(self.frame.size, prompt, settings=focus, previous=None, refine=None)
        cache, told = WindowCache(), None
        try:
            while True:
                told = self._look(plan.send(told), cache)
        except StopIteration as end:
            answer: GridPrediction = end.value
            return answer

    def _look(self, look: Look, cache: WindowCache) -> GridPrediction:
        """One run of the decoder, after one of the encoder for a window that is new."""
        if look.window is None:
            return self._decode_prompt(look.prompt, look.low_res)
        focus = self._model.focus
        known = cache.find(look.window, reuse=1.0 if focus is None else focus.reuse)
        if known is None:
            cut = np.ascontiguousarray(self.image[look.window.slices])
            known = look.window, ExportedView(self._model, cut)
        window, view = known
        cache.keep(window, view)
        prompt = prompt_inside(look, window, view.frame.size)
        inner: GridPrediction = view._decode_prompt(prompt, look.low_res)
        masks = (replace(mask, frame=self.frame, windows=(window,)) for mask in inner.masks)
        return replace(inner, masks=tuple(masks))

    def _decode_prompt(self, prompt: Prompt, low_res: Floats | None) -> GridPrediction:
        """One prompt on this view; `low_res` (m, m) takes the place of the prompt's mask."""
        points, labels = self.frame.points_to_model(prompt.points), prompt.labels
        if prompt.box is None:
            points = np.concatenate([points, np.zeros((1, 2), np.float32)])
            labels = np.append(labels, _NOT_A_POINT)
        else:
            corners = self.frame.boxes_to_model(prompt.box).reshape(2, 2)
            points = np.concatenate([points, corners])
            labels = np.concatenate([labels, [_BOX_START, _BOX_END]])
        size = self._model.config["mask_size"]
        mask = low_res
        if mask is None and prompt.mask is not None:
            mask = _mask_prompt(prompt.mask, self.frame, size)
        embedding = None
        if prompt.text is not None:
            embedding, phrase_map = self._phrase(prompt.text)
            if mask is None:
                mask = bilinear_resize(phrase_map, (size, size))
        logits, iou = self._decode(
            np.asarray(points, np.float32)[None],
            np.asarray(labels, np.float32)[None],
            None if mask is None else mask[None],
            embedding=embedding,
        )
        masks = tuple(GridMask(frame=self.frame, grids=grid[None]) for grid in logits[0])
        return GridPrediction(masks=masks, iou=iou[0])

    def _decode(
        self, coords: Floats, labels: Floats, masks: Floats | None, *, embedding: Floats | None
    ) -> tuple[Floats, Floats]:
        """Logits (P, 4, m, m) and IoU (P, 4) of P prompts in model pixels."""
        size = self._model.config["mask_size"]
        count = len(coords)
        feeds: dict[str, NDArray[Any]] = {
            "image_embeddings": self.features["image_embeddings"],
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": np.zeros((count, 1, size, size), np.float32)
            if masks is None
            else np.asarray(masks, np.float32)[:, None],
            "has_mask_input": np.array([masks is not None], np.float32),
            # The masks at this size are not read: as few pixels as possible.
            "orig_im_size": np.array([1, self.frame.image_size], np.float32),
        }
        file = "decoder.onnx"
        if embedding is not None:
            file = "decoder_text.onnx"
            side = self._model.config["text"]["map_size"]
            feeds |= {
                "text_embedding": embedding,
                # Resized to a mask prompt already, where it is one.
                "text_map": np.zeros((1, 1, side, side), np.float32),
                "has_text_map": np.zeros(1, np.float32),
            }
        logits, iou = self._model.run(file, feeds, ["low_res_masks", "iou_predictions"])
        return logits, iou


def stability_of(logits: Floats, *, offset: float = 1.0) -> float:
    """IoU of the masks at logits +offset and -offset, of logits (H, W)."""
    return float((logits > offset).sum() / max(1, int((logits > -offset).sum())))


def _mask_prompt(mask: NDArray[np.bool_] | Floats, frame: Frame, size: int) -> Floats:
    """A mask of the photo, (H, W) bool or logits, as a mask prompt (m, m) of logits."""
    values = np.asarray(mask, np.float32)
    if mask.dtype == np.bool_:
        values = (2 * values - 1) * np.float32(_MASK_LOGIT)
    rows, columns = frame.covered(size)
    grid = np.full((size, size), -_MASK_LOGIT, np.float32)
    grid[:rows, :columns] = area_resize(values, (rows, columns))
    return grid
