"""What the events of the Explore tab do: each calls the session's explorer and returns scenes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from textsam.errors import PromptError

from ..explorer.exports import ExportFormat, export
from ..explorer.photo_cache import PhotoCache
from ..explorer.scene import empty_scene
from .sessions import EXPIRED, Session, error_message

_PROGRESS_INTERVAL = 0.3  # seconds

Scenes = tuple[dict[str, Any], dict[str, Any]]

# The methods of `Explorer` that canvas and list may call.
_ACTIONS = {
    *("click", "box", "reading", "select", "start_new", "show"),
    *("rename", "delete", "clear", "undo", "redo"),
}


def scenes(session: Session, *, message: str | None = None, error: bool = False) -> Scenes:
    """The scene for the canvas, and for the list, which does not need the masks."""
    scene = session.scene(message=message, error=error)
    # The run-length codes are most of a scene.
    rows = [{key: v for key, v in item.items() if key != "counts"} for item in scene["objects"]]
    return scene, {**scene, "objects": rows}


def _scenes_after(session: Session | None, work: Callable[[Session], object]) -> Scenes:
    """Do something and return what the page shows then; an error becomes a message."""
    if session is None:
        scene = empty_scene(EXPIRED, error=True)
        return scene, scene
    with session.lock:
        try:
            work(session)
        except Exception as error:
            return scenes(session, message=error_message(error), error=True)
        return scenes(session)


def open_photo(photos: PhotoCache, session: Session | None, data: Any) -> tuple[Any, ...]:
    """Open an upload or an example; the first photo of a page starts its session."""
    # None: the page was idle for long, and Gradio deleted its session.
    session = session or Session(photos)

    def work(page: Session) -> None:
        if "example" in data:
            page.open_example(str(data["example"]))
        else:
            page.open_upload(str(data["path"]), str(data.get("name") or "photo"))

    return (session, *_scenes_after(session, work))


def act(session: Session | None, event: gr.EventData) -> Scenes:
    """Call the method of the explorer that the page names by "do"; the other data are arguments."""

    def work(page: Session) -> None:
        arguments = dict(event._data)
        action = arguments.pop("do")
        # A forged request must not call anything else.
        if action not in _ACTIONS:
            raise PromptError(f"got the action {action!r}; wanted one of {sorted(_ACTIONS)}")
        getattr(page.explorer, action)(**arguments)

    return _scenes_after(session, work)


def find(
    session: Session | None,
    text: str,
    exclude: str,
    strategy: str,
    threshold: float,
    exclusive: bool,
) -> Scenes:
    """Find phrases."""
    overlap = "exclusive" if exclusive else "allow"
    options = {"strategy": strategy, "threshold": threshold, "overlap": overlap}
    return _scenes_after(session, lambda page: page.explorer.find(text, exclude, **options))


def find_again(session: Session | None, *options: Any) -> Any:
    """Find the last phrases with other settings; without phrases, nothing changes."""
    query = None if session is None else session.explorer.board.query
    if query is None:
        return gr.skip(), gr.skip()
    return find(session, ", ".join(query["text"]), ", ".join(query["exclude"] or ()), *options)


def like(session: Session | None) -> Scenes:
    """Find more objects like the chosen one."""
    return _scenes_after(session, lambda page: page.explorer.like())


def everything(session: Session | None) -> Iterator[tuple[Any, Any]]:
    """Segment everything; yields the progress meanwhile."""
    progress = [0, 0]  # points done, points in all
    answer: list[Scenes] = []

    def note(done: int, total: int) -> None:
        progress[:] = done, total

    def work() -> None:
        answer.append(_scenes_after(session, lambda page: page.explorer.everything(note)))

    # A thread, because a generator cannot yield from inside the library's callback.
    worker = threading.Thread(target=work, name="everything", daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(_PROGRESS_INTERVAL)
        done, total = progress
        if total and worker.is_alive():
            yield {"progress": f"Segmenting everything: {100 * done // total}%"}, gr.skip()
    yield answer[0]


def explain(session: Session | None) -> tuple[Any, ...]:
    """Explain the last phrases: the opened accordion, sentences, picture and table."""
    accordion = gr.Accordion(visible=True, open=True)
    if session is None:
        return accordion, EXPIRED, None, None
    try:
        with session.lock:
            why = session.explorer.why()
        sentences = "\n".join(why.sentence(phrase) for phrase in why.phrases)
        rows = [list(row.cells()) for row in why.short_table()]
        return accordion, sentences, why.picture(), rows
    except Exception as error:
        return accordion, error_message(error), None, None


def export_file(
    session: Session | None, format: ExportFormat, opacity: float, outline: bool
) -> tuple[str | None, Any]:
    """Write the visible objects to a file: its path, and what went wrong."""
    if session is None:
        return None, gr.Markdown(EXPIRED, visible=True)
    try:
        with session.lock:
            result, photo = session.explorer.result(), session.explorer.photo
        assert photo is not None  # `result` raises without a photo
        folder = session.new_export_folder()
        path = export(result, photo, format, folder, opacity=opacity, outline=outline)
    except Exception as error:
        return None, gr.Markdown(error_message(error), visible=True)
    return str(path), gr.Markdown(visible=False)
