"""The tab that searches an index of masks: by a phrase, by the chosen object, by a crop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from textsam.errors import PromptError
from textsam.results.columns import MaskResult
from textsam.values.images import load_image

from ..explorer.searching import Indexes, Query, caption, photo_of, result_picture
from .events import scenes
from .messages import told
from .sessions import Session, no_session

__all__ = ["add_search_tab"]

_BY = [
    ("a phrase", "text"),
    ("the object chosen in Explore", "mask"),
    ("a crop", "image"),
]
_SPACES = [("what it is (CLIP)", "clip"), ("what it looks like (SAM)", "sam")]


def add_search_tab(
    indexes: Indexes,
    session: gr.State,
    explored: list[Any],
    tabs: gr.Tabs,
    *,
    first: str | None = None,
    choose: bool = True,
) -> None:
    """Lay out the tab, inside a `gr.Tab`.

    Args:
        indexes: Opens what is searched.
        session: The page's.
        explored: Canvas and list, which show the photo of a result that was clicked.
        tabs: Where the explorer's tab is.
        first: Address of the index that a page begins with.
        choose: Whether a page may open another one.
    """
    found = gr.State([])
    opened = gr.State(first)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            with gr.Group(visible=choose):
                path = gr.Textbox(
                    first or "",
                    label="Index",
                    placeholder="masks.lance, or s3://bucket/masks.lance",
                    max_length=1000,
                    elem_id="index-path",
                )
                other = gr.Button("Open index", elem_id="index-open")
            by = gr.Radio(_BY, value="text", label="Search by", elem_id="search-by")
            text = gr.Textbox(
                label="Phrase", placeholder="striped sail", max_length=200, elem_id="search-text"
            )
            crop = gr.Image(
                label="Crop",
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                visible=False,
                elem_id="search-crop",
                height=180,
            )
            space = gr.Radio(_SPACES, value="clip", label="Alike in", elem_id="search-space")
            with gr.Accordion("Only", open=False):
                datasets = gr.Dropdown([], multiselect=True, label="Data sets")
                labels = gr.Textbox(label="Labels", placeholder="sail, boat", max_length=500)
                least = gr.Number(0, label="Least pixels", minimum=0)
                count = gr.Slider(4, 60, value=24, step=4, label="Results")
            button = gr.Button("Search", variant="primary", elem_id="search")
            status = gr.Markdown(
                f"Index: {first}" if first else "Open an index first: type its path",
                elem_id="search-status",
            )
        with gr.Column(scale=5, min_width=320):
            gallery = gr.Gallery(
                label="Results; click one to open its photo",
                columns=4,
                object_fit="contain",
                height="auto",
                allow_preview=False,
                elem_id="results",
            )
    by.change(
        lambda way: (gr.Textbox(visible=way == "text"), gr.Image(visible=way == "image")),
        inputs=by,
        outputs=[text, crop],
        api_visibility="private",
        show_progress="hidden",
    )

    def search(page: Session | None, *given: Any) -> tuple[Any, ...]:
        return _search(indexes, page, *given)

    def open_result(
        page: Session | None, uri: str | None, rows: list[Any], event: gr.SelectData
    ) -> tuple[Any, ...]:
        return _open_result(page, uri, rows, int(event.index))

    inputs = [session, opened, by, text, crop, space, datasets, labels, least, count]
    for trigger in (button.click, text.submit):
        trigger(
            search,
            inputs=inputs,
            outputs=[gallery, found, status, datasets],
            api_visibility="private",
            concurrency_id="work",
            show_progress_on=[gallery],
        )
    gallery.select(
        open_result,
        inputs=[session, opened, found],
        outputs=[*explored, tabs, status],
        api_visibility="private",
        concurrency_id="work",
    )
    if choose:  # else not even a forged request opens one
        for trigger in (other.click, path.submit):
            trigger(
                lambda typed: _open_index(indexes, typed),
                inputs=path,
                outputs=[opened, status, datasets, gallery, found],
                api_visibility="private",
                concurrency_id="work",
                show_progress_on=[status],
            )


def _open_index(indexes: Indexes, path: str) -> tuple[Any, ...]:
    """Address, status, the choice of data sets, and no results; or what is wrong with the path."""
    try:
        index = indexes.at(path or "")
        count, names = index.open().count(), sorted(index.open().datasets())
    except Exception as error:
        return gr.skip(), f"⚠ {told(error)}", gr.skip(), gr.skip(), gr.skip()
    note = f"{index.uri}: {count:,} masks of {', '.join(names[:5])}{', …' * (len(names) > 5)}"
    return index.uri, note, gr.Dropdown(names, value=[]), [], []


def _search(
    indexes: Indexes,
    page: Session | None,
    uri: str | None,
    by: str,
    text: str,
    crop: str | None,
    space: Any,
    datasets: list[str],
    labels: str,
    least: float,
    count: float,
) -> tuple[Any, ...]:
    """Gallery, rows, status and the choice of data sets."""
    try:
        index = indexes.at(uri or "")
        query = Query(
            text=(" ".join((text or "").split()) or None) if by == "text" else None,
            mask=_chosen(page) if by == "mask" else None,
            image=load_image(Path(crop)) if by == "image" and crop else None,
            space=space,
            datasets=tuple(datasets or ()),
            labels=tuple(part for raw in (labels or "").split(",") if (part := raw.strip())),
            min_area=least or 0,
            count=int(count),
        )
        results = index.search(query)
        rows = [result.row for result in results]
        pictures = [
            (result_picture(row, photo_of(row, index.uri)), caption(row, score))
            for row, score in zip(rows, results.scores, strict=True)
        ]
        names = sorted(index.open().datasets())
    except Exception as error:
        return gr.skip(), gr.skip(), f"⚠ {told(error)}", gr.skip()
    note = f"{len(rows)} of {index.open().count():,} masks" if rows else "Nothing fits that"
    return pictures, rows, note, gr.Dropdown(names)


def _chosen(page: Session | None) -> MaskResult:
    """The chosen object, or the only one, with its photo."""
    if page is None:
        raise PromptError(no_session()["message"])
    explorer = page.explorer
    with explorer.lock:
        shown = [thing for thing in explorer.board.things if thing.shown]
        thing = explorer.board.active_thing or (shown[0] if len(shown) == 1 else None)
        if thing is None:
            raise PromptError("Choose an object in Explore first: click on it, or on its colour")
        found = thing.found
        return MaskResult(rle=found.rle, label=found.label, image=explorer.view.image)


def _open_result(
    page: Session | None, uri: str | None, rows: list[Any], place: int
) -> tuple[Any, ...]:
    """Canvas, list, tabs and status, after a result was clicked."""
    stay = (gr.skip(), gr.skip(), gr.skip())
    try:
        if page is None:
            raise PromptError(no_session()["message"])
        row = rows[place]
        photo = photo_of(row, uri or "")
        if photo is None:
            raise PromptError(f"The photo {row.image} is not a file on this machine")
        page.open_file(photo)
    except Exception as error:
        return (*stay, f"⚠ {told(error)}")
    trouble = None
    try:
        page.explorer.put(MaskResult(rle=row.rle, label=row.label), row.label or "result")
    except PromptError as error:
        trouble = told(error)
    shown = scenes(page, message=trouble, error=trouble is not None)
    return (*shown, gr.Tabs(selected="explore"), gr.skip())
