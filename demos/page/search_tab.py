"""The tab that searches an index of masks: by a phrase, by the chosen object, or by a crop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from textsam.errors import PromptError
from textsam.results.mask_result import MaskResult
from textsam.values.images import load_image

from ..explorer.searching import Indexes, photo_of, result_picture
from .events import scenes
from .sessions import EXPIRED, Session, error_message

_SEARCH_BY = [("a phrase", "text"), ("the object chosen in Explore", "mask"), ("a crop", "image")]
_WORK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "work"}
_SPACES = [("what it is (CLIP)", "clip"), ("what it looks like (SAM)", "sam")]


def add_search_tab(
    indexes: Indexes,
    session: gr.State,
    explored: list[Any],  # canvas and list of the Explore tab, which show a clicked result
    tabs: gr.Tabs,
    *,
    first: str | None = None,  # address of the index that is searched at first
    choose: bool = True,  # whether a page may open other indexes
) -> None:
    """Lay out the tab, inside a `gr.Tab`."""
    rows = gr.State([])
    uri = gr.State(first)
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
                open_button = gr.Button("Open index", elem_id="index-open")
            query = _add_query()
            filters = _add_filters()
            button = gr.Button("Search", variant="primary", elem_id="search")
            hint = f"Index: {first}" if first else "Type the path of an index and open it"
            status = gr.Markdown(hint, elem_id="search-status")
        with gr.Column(scale=5, min_width=320):
            gallery = gr.Gallery(
                label="Results; click one to open its photo",
                columns=4,
                object_fit="contain",
                height="auto",
                allow_preview=False,
                elem_id="results",
            )
    results = [gallery, rows, status, filters[0]]  # filters[0]: the data sets of the index
    for trigger in (button.click, query[1].submit):
        trigger(
            partial(_search, indexes),
            inputs=[session, uri, *query, *filters],
            outputs=results,
            show_progress_on=[gallery],
            **_WORK,
        )
    gallery.select(
        _open_result, inputs=[session, uri, rows], outputs=[*explored, tabs, status], **_WORK
    )
    if choose:  # without these events, a forged request cannot open an index either
        for trigger in (open_button.click, path.submit):
            trigger(
                partial(_open_index, indexes),
                inputs=path,
                outputs=[uri, *results],
                show_progress_on=[status],
                **_WORK,
            )


def _add_query() -> list[Any]:
    """What to search for: the kind of query, phrase, crop, and the space of the comparison."""
    kind = gr.Radio(_SEARCH_BY, value="text", label="Search by", elem_id="search-by")
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
    kind.change(
        lambda value: (gr.Textbox(visible=value == "text"), gr.Image(visible=value == "image")),
        inputs=kind,
        outputs=[text, crop],
        api_visibility="private",
        show_progress="hidden",
    )
    space = gr.Radio(_SPACES, value="clip", label="Compare", elem_id="search-space")
    return [kind, text, crop, space]


def _add_filters() -> list[Any]:
    """Which rows count, and how many results are shown."""
    with gr.Accordion("Filters", open=False):
        datasets = gr.Dropdown([], multiselect=True, label="Data sets")
        labels = gr.Textbox(label="Labels", placeholder="sail, boat", max_length=500)
        min_area = gr.Number(0, label="Minimum area, in pixels", minimum=0)
        count = gr.Slider(4, 60, value=24, step=4, label="Number of results")
    return [datasets, labels, min_area, count]


def _open_index(indexes: Indexes, path: str) -> tuple[Any, ...]:
    """Address, no results, status and data sets; or what is wrong with the path."""
    try:
        index = indexes.at(path or "")
        count, names = index.open().count(), sorted(index.open().datasets())
    except Exception as error:
        return gr.skip(), gr.skip(), gr.skip(), f"⚠ {error_message(error)}", gr.skip()
    note = f"{index.uri}: {count:,} masks of {', '.join(names[:5])}{', …' * (len(names) > 5)}"
    return index.uri, [], [], note, gr.Dropdown(names, value=[])


def _search(
    indexes: Indexes,
    page: Session | None,
    uri: str | None,
    kind: str,
    text: str,
    crop: str | None,
    space: str,
    datasets: list[str],
    labels: str,
    min_area: float,
    count: float,
) -> tuple[Any, ...]:
    """Gallery, rows, status and the choice of data sets."""
    try:
        index = indexes.at(uri or "")
        query: dict[str, Any] = {"space": space}
        if kind == "text":
            query["text"] = " ".join((text or "").split()) or None
        elif kind == "mask":
            query["mask"] = _chosen_mask(page)
        elif crop:
            query["image"] = load_image(Path(crop))
        results = index.search(
            query,
            count=int(count),
            datasets=tuple(datasets or ()),
            labels=tuple(part for raw in (labels or "").split(",") if (part := raw.strip())),
            min_area=min_area,
        )
        rows = list(results)
        pictures = [
            (
                result_picture(row, photo_of(row, index.uri)),
                f"{row.label or 'no label'} · {row.dataset} · {row.cosine:.2f}",
            )
            for row in rows
        ]
        # Asked again: another process may have added rows.
        total, names = index.open().count(), sorted(index.open().datasets())
    except Exception as error:
        return gr.skip(), gr.skip(), f"⚠ {error_message(error)}", gr.skip()
    note = f"{len(rows)} of {total:,} masks" if rows else "No mask matches the filters"
    return pictures, rows, note, gr.Dropdown(names)


def _chosen_mask(page: Session | None) -> MaskResult:
    """The mask of the chosen object, with its photo."""
    if page is None:
        raise PromptError(EXPIRED)
    with page.lock:
        chosen = page.explorer.board.chosen_object
        if chosen is None:
            raise PromptError("Choose an object in Explore first: click on it, or on its colour")
        # Without its scores: they say how well a phrase described it, not how alike others are.
        result = chosen.result
        return MaskResult(rle=result.rle, label=result.label, photo=page.explorer.view.photo.origin)


def _open_result(
    page: Session | None, uri: str | None, rows: list[Any], event: gr.SelectData
) -> tuple[Any, ...]:
    """Canvas, list, tabs and status, after a result was clicked."""
    try:
        if page is None:
            raise PromptError(EXPIRED)
        row = rows[int(event.index)]
        photo = photo_of(row, uri or "")
        if photo is None:
            raise PromptError(f"The photo {row.image} is not a file on this machine")
        with page.lock:
            page.open_file(photo)
    except Exception as error:
        return gr.skip(), gr.skip(), gr.skip(), f"⚠ {error_message(error)}"
    problem = None
    with page.lock:
        try:
            page.explorer.put(MaskResult(rle=row.rle, label=row.label), row.label or "result")
        except PromptError as error:  # the photo changed since; it is shown without the mask
            problem = error_message(error)
        canvas, objects = scenes(page, message=problem, error=problem is not None)
    return canvas, objects, gr.Tabs(selected="explore"), gr.skip()
