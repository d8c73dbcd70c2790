"""`TextSAM`: a SAM core, a CLIP and the pathway between them as one model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, Unpack, overload

import torch

from textsam.clip.encoder import ClipEncoder
from textsam.clip.pathway import TextPathway
from textsam.errors import WeightsError, one_line, unknown_attribute, unknown_keyword
from textsam.inference.photo.encoded import encode_photo
from textsam.inference.photo_lists import OnError, answer_photos, check_list, read_pairs
from textsam.inference.strategies.answering import learn_concept
from textsam.inference.strategies.exemplars import Example
from textsam.inference.strategies.like import Concept
from textsam.inference.strategies.query import (
    Query,
    QueryOptions,
    SegmentOptions,
    make_query,
    show_keywords,
)
from textsam.inference.tiled.tiled_view import TiledView, open_tiled
from textsam.inference.view import ImageView
from textsam.modeling.core import Core
from textsam.modeling.encoder_backend import attach_backend, backend_of
from textsam.modeling.huggingface.detectors import Detector
from textsam.modeling.huggingface.phrase_maps import MapSource, read_map_source
from textsam.modeling.huggingface.sam3 import ConceptModel
from textsam.modeling.precision import (
    choose_device,
    choose_dtype,
    compile_networks,
    find_dtype,
    in_float32,
    set_encoder_dtype,
)
from textsam.results.label_map import LabelMap
from textsam.results.segmentation import Segmentation
from textsam.values.calibration import Calibration
from textsam.values.images import ImageSource
from textsam.values.judge import Threshold
from textsam.values.photo import Photo
from textsam.values.settings import (
    AutomaticSettings,
    Backend,
    FocusSettings,
    Preset,
    TextSettings,
    TileSettings,
)
from textsam.weights.hub import fetch
from textsam.weights.model_folder import read_model, read_pathway, write_model
from textsam.weights.parts import ModelParts
from textsam.weights.publish import publish

__all__ = ["TextSAM", "segment", "segment_pairs"]


T = TypeVar("T")
Phrases: TypeAlias = "str | Sequence[str] | None"


class _Part(Generic[T]):
    """An attribute stored in `TextSAM.parts`; photos that are open keep the parts they have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: TextSAM, owner: type) -> T:
        value: T = getattr(model.parts, self._name)
        return value

    def __set__(self, model: TextSAM, value: T) -> None:
        model.parts = replace(model.parts, **{self._name: value})  # type: ignore[arg-type]


class TextSAM:
    """A promptable segmentation model that also takes phrases.

    Attributes:
        parts: All of the following in one value, which open photos share; see `ModelParts`.
        sam: The SAM core.
        clip: The CLIP model, or None.
        pathway: From CLIP embeddings to prompts, or None; without it phrases are no prompts.
        map_source: From a phrase to its map, in place of the pathway's dense head, or None.
        concept_model: From a phrase to all its instances, for `strategy="concept"`, or None.
        detector: From phrases to boxes, for `strategy="detect"`, or None.
        text_settings: Geometry of `strategy="auto"`.
        focus: When to zoom in on small objects, which costs one encoding for each window; None for
            never, as in Segment Anything.
        calibration: From evidence to probabilities, with the default thresholds.
        name: What the model was loaded as.
    """

    sam = _Part[Core]()
    clip = _Part[ClipEncoder | None]()
    pathway = _Part[TextPathway | None]()
    map_source = _Part[MapSource | None]()
    concept_model = _Part[ConceptModel | None]()
    detector = _Part[Detector | None]()
    text_settings = _Part[TextSettings]()
    focus = _Part[FocusSettings | None]()
    calibration = _Part[Calibration]()
    name = _Part[str]()

    def __init__(
        self,
        sam: Core,
        *,
        clip: ClipEncoder | None = None,
        pathway: TextPathway | None = None,
        map_source: MapSource | None = None,
        concept_model: ConceptModel | None = None,
        detector: Detector | None = None,
        text_settings: TextSettings | None = None,
        focus: FocusSettings | None = None,
        calibration: Calibration | None = None,
        name: str = "unnamed",
        peeled: tuple[str, ...] = (),
    ) -> None:
        self.parts = ModelParts(
            sam=sam.eval(),
            clip=clip,
            pathway=None if pathway is None else pathway.eval(),
            map_source=map_source,
            concept_model=concept_model,
            detector=detector,
            text_settings=text_settings or TextSettings(),
            focus=focus,
            calibration=calibration or Calibration(),
            name=name,
            peeled=peeled,
        )

    def __repr__(self) -> str:
        parts = [self.name, f"{self.sam.config.image_size} px"]
        parts.append(f"clip={self.clip.name}" if self.clip is not None else "no clip")
        if self.detector is not None:
            parts.append(f"detector={self.detector.name}")
        if self.backend != "torch":
            parts.append(f"backend={self.backend}")
        parts += self.parts.peeled
        return f"TextSAM({', '.join(parts)})"

    @classmethod
    @in_float32
    def from_pretrained(
        cls,
        name: str | Path = "tiny",
        *,
        clip: str | Path | ClipEncoder | None = None,
        pathway: str | Path | None = None,
        map_source: str | Path | MapSource | None = None,
        detector: str | Path | Detector | None = None,
        calibration: str | Path | Calibration | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        compile: bool = False,
        backend: Backend = "torch",
        revision: str | None = None,
        local_files_only: bool = False,
        **unknown: Any,
    ) -> TextSAM:
        """Load a model.

        Args:
            name: `"tiny"` (ships with textsam, no download) or another name that `textsam models`
                prints ("sam2.1-small", "grounded-sam"); a folder that `save_pretrained` wrote; a
                folder or hub id of transformers ("facebook/sam-vit-base"): SAM, SAM-HQ, SAM 2.1 or
                EdgeTAM; an official `.pth` file of SAM, SAM-HQ or MobileSAM.
            clip: A CLIP to add or to use instead of the model's own: see
                `ClipEncoder.from_pretrained`.
            pathway: A `.safetensors` pathway trained for this SAM and this CLIP.
            map_source: A network whose maps of phrases `strategy="auto"` starts from: a folder or
                hub id of CLIPSeg ("CIDAS/clipseg-rd64-refined").
            detector: A zero-shot detector, which phrases are then put to: a folder or hub id of
                Grounding DINO ("IDEA-Research/grounding-dino-tiny"), MM Grounding DINO, OWLv2,
                OWL-ViT or OmDet-Turbo.
            calibration: A file that `textsam calibrate` wrote, in place of the model's own.
            device: "cpu", "cuda", "mps", or "auto" for a GPU if there is one; the CPU by default.
            dtype: "bfloat16" or "float16" to run the image encoders in half precision.
            compile: Compile the SAM's networks, see `compile`.
            backend: "onnxruntime" or "openvino" to run the image encoder; exported at first use.
            revision: Branch, tag or commit of the model's hub repository; `name@revision` pins a
                repository wherever a hub id is taken.
            local_files_only: Do not use the network, as `HF_HUB_OFFLINE=1` says for everything.
            **unknown: Refused; the error names ours (`dtype`, `device`).

        Raises:
            WeightsError: There is no such model, its files are damaged, or options do not fit.
        """
        _refuse(unknown)
        target = None if device is None else choose_device(device)  # before a download
        parts = read_model(name, revision=revision, local_files_only=local_files_only)
        if clip is not None:
            if not isinstance(clip, ClipEncoder):
                clip = ClipEncoder.from_pretrained(clip, local_files_only=local_files_only)
            # The model's own pathway and calibration belong to its own CLIP.
            parts = replace(parts, clip=clip, pathway=None, calibration=Calibration())
        parts = _with_finders(parts, map_source, detector, local_files_only=local_files_only)
        model = cls(**vars(_with_trained(parts, pathway, calibration)))
        for where in (None if dtype is None else choose_dtype(dtype), target):
            if where is not None:
                model.to(where)
        attach_backend(model.sam, backend, name=model.name)
        return model.compile() if compile else model

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
        """Write the model to a folder: safetensors, configuration, and its CLIP.

        Args:
            folder: Created if it does not exist.
            dtype: Type of the stored weights, e.g. `torch.float16`; unchanged by default.

        Raises:
            OSError: The folder cannot be written. Files that were there stay whole.
        """
        return write_model(Path(folder), self.parts, dtype=dtype)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a textsam model",
        revision: str | None = None,
    ) -> str:
        """Publish the model on the Hugging Face hub, for `from_pretrained(repo_id)`.

        The folder is that of `save_pretrained`, with a model card, `README.md`.

        Args:
            repo_id: `owner/name`, or a name of one's own; created if it does not exist.
            private: Whether a new repository is private; the owner's default if None.
            token: Token that may write; that of `hf auth login` or `HF_TOKEN` by default.
            commit_message: What the hub's history says.
            revision: Branch; the main one by default.

        Returns:
            Address of the commit.

        Raises:
            WeightsError: It may not be published there, or the hub cannot be reached.
        """
        return publish(
            self.parts,
            repo_id,
            private=private,
            token=token,
            commit_message=commit_message,
            revision=revision,
        )

    @property
    def device(self) -> torch.device:
        """The device of the SAM core."""
        return self.parts.device

    @property
    def backend(self) -> Backend:
        """What runs the SAM's image encoder: "torch", "onnxruntime" or "openvino"."""
        return backend_of(self.sam)

    @property
    def has_dense_text(self) -> bool:
        """Whether phrases give a map, which `strategy="auto"` starts from."""
        return self.parts.has_dense_text

    def to(self, target: str | torch.device | torch.dtype) -> TextSAM:
        """Move all parts, or change the type of the image encoders, and return the model.

        Args:
            target: A device as in `from_pretrained`, or a type: `"bfloat16"`, `torch.float16`.
                Weights that were rounded stay so, also back in float32.

        Raises:
            WeightsError: Torch has no such device, or encoders cannot compute in that type, or
                another backend than torch runs the image encoder.
        """
        dtype = find_dtype(target)
        if self.backend != "torch" and dtype != torch.float32 and str(target) != "cpu":
            raise WeightsError(
                f"backend={self.backend!r} runs the image encoder in float32 on the CPU; "
                f"{str(target)!r} needs a model that is loaded without backend"
            )
        if dtype is not None:
            dtype = choose_dtype(dtype)
            set_encoder_dtype(self.sam.image_encoder, dtype)
            if self.clip is not None:
                self.clip.to_dtype(dtype)
            for part in (self.map_source, self.concept_model, self.detector):
                if part is not None:
                    part.to(dtype)
            return self
        assert not isinstance(target, torch.dtype)
        device = choose_device(target)
        try:
            self.sam.to(device)
        except (RuntimeError, AssertionError) as error:
            raise WeightsError(f"cannot use device {str(target)!r}: {one_line(error)}") from error
        if self.clip is not None:
            self.clip.to(device)
        if self.pathway is not None:
            self.pathway.to(device)
        for part in (self.map_source, self.concept_model, self.detector):
            if part is not None:
                part.to(device)
        return self

    def compile(self) -> TextSAM:
        """Compile the SAM's networks by `torch.compile`, and return the model.

        Nothing is compiled before the first photo, which then takes minutes; it pays over thousands
        of photos. Results differ by rounding.

        Raises:
            WeightsError: This machine has no compiler (g++ and Python's headers; Triton for CUDA),
                or another backend than torch runs the image encoder.
        """
        if self.backend != "torch":
            raise WeightsError(
                f"backend={self.backend!r} runs the image encoder, there is nothing to compile: "
                "give compile=True or backend, not both"
            )
        compile_networks(self.sam, self.device)
        return self

    def half(self) -> TextSAM:
        """The image encoders in float16; see `to`."""
        return self.to(torch.float16)

    def bfloat16(self) -> TextSAM:
        """The image encoders in bfloat16; see `to`."""
        return self.to(torch.bfloat16)

    def float(self) -> TextSAM:
        """The image encoders in float32; see `to`."""
        return self.to(torch.float32)

    def cuda(self, index: int | None = None) -> TextSAM:
        """All parts on a GPU of NVIDIA; a `WeightsError` if torch has none."""
        return self.to("cuda" if index is None else f"cuda:{index}")

    def cpu(self) -> TextSAM:
        """All parts on the CPU."""
        return self.to("cpu")

    def eval(self) -> TextSAM:
        """The model itself, whose parts are always in evaluation mode."""
        return self

    @in_float32
    def open(self, image: ImageSource) -> ImageView:
        """Encode an image once, for any number of queries.

        Args:
            image: Whatever `textsam.load_image` takes: path, URL, bytes, file, PIL, array, tensor.

        Raises:
            ImageError: It is not an image.
        """
        return ImageView(encode_photo(self.parts, Photo.open(image)))

    def open_tiled(
        self, image: ImageSource, *, tile: int | None = None, overlap: int | None = None
    ) -> TiledView:
        """Open a big photo, 4K to 100 megapixels, to segment it tile by tile.

        Args:
            image: As for `open`.
            tile: Side of a tile, original pixels.
            overlap: Overlap of neighbouring tiles, original pixels.

        Returns:
            A view with `segment(text=...)`, `explain` and `everything`, which keeps no encoding.

        Raises:
            ImageError: It is not an image.
            PromptError: Invalid sizes, see `TileSettings`.
        """
        usual = TileSettings()
        settings = TileSettings(
            tile=usual.tile if tile is None else tile,
            overlap=usual.overlap if overlap is None else overlap,
        )
        return open_tiled(self.parts, image, settings=settings)

    def concept(self, like: Example | Concept, unlike: Example | None = None) -> Concept:
        """Make a concept of examples, to find in many photos by `segment(like=concept)`.

        Args:
            like: `segmentation[0]`, a `Segmentation` of one label, a photo with the place of the
                thing in it, `("dog.jpg", (x0, y0, x1, y1))`, where a point (x, y), a mask (H, W) or
                a phrase may stand for the box; or a list of these. Several examples tell more of
                the kind and less of one object. Or a concept, to change what it is not.
            unlike: Examples of what is not meant: things that were found by mistake.

        Raises:
            PromptError: No example, an empty one, one without its photo, or several labels.
        """
        return learn_concept(self.parts, like, unlike)

    @overload
    def segment(
        self,
        image: list[Any] | tuple[Any, ...],
        text: Phrases = None,
        *,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[SegmentOptions],
    ) -> list[Segmentation]: ...
    @overload
    def segment(
        self,
        image: list[Any] | tuple[Any, ...],
        text: Phrases = None,
        *,
        on_error: Literal["skip"],
        **options: Unpack[SegmentOptions],
    ) -> list[Segmentation | None]: ...
    @overload
    def segment(
        self,
        image: ImageSource,
        text: Phrases = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[SegmentOptions],
    ) -> Segmentation: ...
    @show_keywords(QueryOptions)
    def segment(
        self,
        image: ImageSource | list[Any] | tuple[Any, ...],
        text: Phrases = None,
        *,
        on_error: OnError = "raise",
        **options: Unpack[SegmentOptions],
    ) -> Any:
        """Open and segment: one image gives one result, a list gives a list.

        Args:
            image: One image; or a list or tuple of them, which are read ahead, and encoded in
                batches on a GPU. The options apply to each: every phrase is asked of every image.
                To ask each image something else, see `segment_pairs`.
            text: A phrase or several.
            on_error: Of a list: "raise" for an image that cannot be read or asked; "skip" to warn
                and have None in its place.
            **options: `points`, `box`, `boxes`, `like`, `threshold` and others: see
                `ImageView.segment`.

        Raises:
            PromptError: See `ImageView.segment`; or a generator, of which `list(...)` is a list.
            ImageError: It is not an image; for a list, the message names position and file. What
                can be seen without decoding is seen before the first image is segmented.
        """
        return self._ask(image, make_query(text=text, **options), on_error)

    __call__ = segment

    def _ask(self, image: Any, query: Query, on_error: OnError) -> Any:
        images = check_list(image)
        if images is None:
            return self.open(image).ask(query)
        if query.like is not None:  # once for all images
            query = replace(query, like=self.concept(query.like, query.unlike), unlike=None)
        asks = [lambda view: view.ask(query)] * len(images)
        return answer_photos(self.parts, images, asks, query=query, on_error=on_error)

    @show_keywords(QueryOptions)
    def segment_pairs(
        self, pairs: Iterable[Any], *, on_error: OnError = "raise", **options: Unpack[QueryOptions]
    ) -> list[Segmentation]:
        """Ask each photo something of its own, in one call.

        model.segment_pairs([("a.jpg", "dog"), ("b.jpg", ["cat", "bowl"])])
        model.segment_pairs([("a.jpg", {"boxes": [[30, 40, 200, 180]]}), ("b.jpg", "cat")])
        model.segment_pairs(zip(photos, phrases), threshold=0.3)

        Args:
            pairs: (photo, phrase), (photo, phrases) or (photo, keywords of `segment`). A photo that
                occurs several times is encoded once.
            on_error: As `segment`.
            **options: Keywords of `segment` for all of them.

        Returns:
            A result for each pair, in order; with "skip", None for those that failed.

        Raises:
            PromptError: As `segment`, also for what is no pair; `ImageError` likewise.
        """
        read = read_pairs(pairs)
        queries = [make_query(**{**options, **own}) for _, own in read]
        asks = [partial(ImageView.ask, query=query) for query in queries]
        photos = [photo for photo, _ in read]
        return answer_photos(self.parts, photos, asks, on_error=on_error)

    @overload
    def everything(
        self,
        image: list[Any] | tuple[Any, ...],
        settings: AutomaticSettings | Preset | None = None,
        *,
        names: Phrases = None,
        threshold: Threshold = None,
        on_error: OnError = "raise",
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Segmentation]: ...
    @overload
    def everything(
        self,
        image: ImageSource,
        settings: AutomaticSettings | Preset | None = None,
        *,
        names: Phrases = None,
        threshold: Threshold = None,
        on_error: OnError = "raise",
        progress: Callable[[int, int], None] | None = None,
    ) -> Segmentation: ...
    def everything(
        self,
        image: ImageSource | list[Any] | tuple[Any, ...],
        settings: AutomaticSettings | Preset | None = None,
        *,
        names: Phrases = None,
        threshold: Threshold = None,
        on_error: OnError = "raise",
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Masks of everything in an image, or in each of a list; see `ImageView.everything`.

        `on_error` and errors are as in `segment`; `progress` counts the images of a list.
        """
        named: dict[str, Any] = {"names": names, "threshold": threshold}
        images = check_list(image)
        if images is None:
            view = self.open(image)  # type: ignore[arg-type]
            return view.everything(settings, progress=progress, **named)
        asks = [lambda view: view.everything(settings, **named)] * len(images)
        return answer_photos(self.parts, images, asks, on_error=on_error, progress=progress)

    def label_map(
        self,
        image: ImageSource,
        phrases: str | list[str],
        *,
        background: str | list[str] | None = None,
        threshold: Threshold = None,
    ) -> LabelMap:
        """A phrase or none for each pixel; options and errors as `ImageView.label_map`, `open`."""
        return self.open(image).label_map(phrases, background=background, threshold=threshold)

    if not TYPE_CHECKING:  # a type checker should know of the real attributes only

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute(self, name, _ADVICE)


# What people type who come from another library.
_ADVICE = {
    **dict.fromkeys(["predict", "infer", "inference"], 'segment(image, "wheel")'),
    **dict.fromkeys(["generate", "generate_masks", "automatic_masks"], "everything(image)"),
    **dict.fromkeys(["set_image", "encode", "encode_image"], "view = open(image)"),
    "set_classes": 'segment(image, ["wheel", "door"])',
    **dict.fromkeys(["fit", "finetune"], "python -m training.train finetune"),
    **dict.fromkeys(["save", "save_model"], 'save_pretrained("folder")'),
    **dict.fromkeys(["load", "from_file"], 'TextSAM.from_pretrained("folder")'),
    "parameters": "sam.parameters(), pathway.parameters()",
}


def _refuse(unknown: Mapping[str, Any]) -> None:
    """Say what the keywords of other libraries are called here."""
    known = [p for p in inspect.signature(TextSAM.from_pretrained).parameters if p != "unknown"]
    foreign = {"dtype": "torch_dtype precision", "device": "device_map map_location"}
    for name in unknown:
        raise unknown_keyword(name, known, foreign)


def _with_finders(
    parts: ModelParts,
    map_source: str | Path | MapSource | None,
    detector: str | Path | Detector | None,
    *,
    local_files_only: bool,
) -> ModelParts:
    """A model with the map source and the detector that were asked for."""
    if map_source is not None:
        if isinstance(map_source, str | Path):
            folder = fetch(map_source, local_files_only=local_files_only)
            map_source = read_map_source(folder, name=str(map_source))
        # The model's own calibration belongs to its own maps.
        parts = replace(parts, map_source=map_source, calibration=Calibration())
    if detector is not None:
        if isinstance(detector, str | Path):
            detector = Detector.from_pretrained(detector, local_files_only=local_files_only)
        parts = replace(parts, detector=detector)
    return parts


def _with_trained(
    parts: ModelParts,
    pathway: str | Path | None,
    calibration: str | Path | Calibration | None,
) -> ModelParts:
    """The parts with a pathway and a calibration that were trained for them, if there are any."""
    if pathway is not None:
        if parts.clip is None:
            raise WeightsError(f"pathway {pathway} needs a CLIP: give clip=... too")
        trained = read_pathway(pathway, sam=parts.name, clip=parts.clip.name)
        parts = replace(parts, pathway=trained)
    if calibration is not None:
        if not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        parts = replace(parts, calibration=calibration)
    return parts


@overload
def segment(
    image: list[Any] | tuple[Any, ...],
    text: Phrases = None,
    *,
    model: str | Path | TextSAM = "tiny",
    on_error: Literal["raise"] = "raise",
    **options: Unpack[SegmentOptions],
) -> list[Segmentation]: ...
@overload
def segment(
    image: list[Any] | tuple[Any, ...],
    text: Phrases = None,
    *,
    model: str | Path | TextSAM = "tiny",
    on_error: Literal["skip"],
    **options: Unpack[SegmentOptions],
) -> list[Segmentation | None]: ...
@overload
def segment(
    image: ImageSource,
    text: Phrases = None,
    *,
    model: str | Path | TextSAM = "tiny",
    on_error: OnError = "raise",
    **options: Unpack[SegmentOptions],
) -> Segmentation: ...
@show_keywords(QueryOptions)
def segment(
    image: ImageSource | list[Any] | tuple[Any, ...],
    text: Phrases = None,
    *,
    model: str | Path | TextSAM = "tiny",
    on_error: OnError = "raise",
    **options: Unpack[SegmentOptions],
) -> Any:
    """Segment with the model that ships with textsam: `segment("street.jpg", text="wheel")`.

    Args:
        image: One image, or a list of them; see `TextSAM.segment`.
        model: A name for `TextSAM.from_pretrained`, loaded once and kept, or a model.
        text: A phrase or several.
        on_error: "raise", or "skip" for None in the place of an image of a list that fails.
        **options: `points`, `box`, `boxes`, `like`, `threshold` and others: see
            `ImageView.segment`.

    Raises:
        TextSamError: See `TextSAM.from_pretrained` and `ImageView.segment`.
    """
    query = make_query(text=text, **options)  # before the model, which is slow to load
    loaded = model if isinstance(model, TextSAM) else _load_once(str(model))
    return loaded._ask(image, query, on_error)


@show_keywords(QueryOptions)
def segment_pairs(
    pairs: Iterable[Any],
    *,
    model: str | Path | TextSAM = "tiny",
    on_error: OnError = "raise",
    **options: Unpack[QueryOptions],
) -> list[Segmentation]:
    """Ask each photo something of its own: see `TextSAM.segment_pairs`."""
    loaded = model if isinstance(model, TextSAM) else _load_once(str(model))
    return loaded.segment_pairs(pairs, on_error=on_error, **options)


@lru_cache(maxsize=1)
def _load_once(name: str) -> TextSAM:
    return TextSAM.from_pretrained(name)
