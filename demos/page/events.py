"""What the page's events do: each asks the session's explorer and returns scenes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr

from ..explorer.explorer import Explorer
from ..explorer.exports import ExportFormat, export
from ..explorer.photos import EncodedPhotos
from .messages import told
from .sessions import Session, no_session

__all__ = [
    "act",
    "ask_again",
    "everything",
    "export_file",
    "find",
    "open_photo",
    "similar",
]

_TELL_EVERY = 0.3  # seconds

Scenes = tuple[dict[str, Any], dict[str, Any]]
Data = Mapping[str, Any]

_ACTIONS: dict[str, Callable[[Explorer, Data], None]] = {
    "click": lambda e, d: e.click(d["x"], d["y"], foreground=bool(d["on"])),
    "box": lambda e, d: e.box(*d["box"]),
    "reading": lambda e, d: e.reading(int(d["reading"])),
    "select": lambda e, d: e.select(d["number"]),
    "new": lambda e, d: e.begin_new(),
    "show": lambda e, d: e.show(d["number"], bool(d["shown"])),
    "rename": lambda e, d: e.rename(d["number"], d["name"]),
    "delete": lambda e, d: e.delete(d["number"]),
    "clear": lambda e, d: e.clear(),
    "undo": lambda e, d: e.undo(),
    "redo": lambda e, d: e.redo(),
}


def scenes(session: Session, *, message: str | None = None, error: bool = False) -> Scenes:
    """The scene for the canvas, and for the list, which needs no masks."""
    scene = session.scene(message=message, error=error)
    things = [{key: v for key, v in thing.items() if key != "counts"} for thing in scene["things"]]
    return scene, {**scene, "things": things}


def _scenes_after(session: Session | None, work: Callable[[Session], None]) -> Scenes:
    if session is None:
        scene = no_session()
        return scene, scene
    try:
        work(session)
    except Exception as error:
        return scenes(session, message=told(error), error=True)
    return scenes(session)


def open_photo(photos: EncodedPhotos, session: Session | None, data: Data) -> tuple[Any, ...]:
    """Open what the browser sent, or an example; a page's first photo begins its session."""
    session = session or Session(photos)

    def work(page: Session) -> None:
        if "example" in data:
            page.open_example(str(data["example"]))
        else:
            page.open_upload(str(data["path"]), str(data.get("name") or "photo"))

    return (session, *_scenes_after(session, work))


def act(session: Session | None, event: gr.EventData) -> Scenes:
    """One of the small things that the canvas and the list ask for."""
    data: Data = event._data

    def work(page: Session) -> None:
        _ACTIONS[data["do"]](page.explorer, data)

    return _scenes_after(session, work)


def find(
    session: Session | None,
    text: str,
    unwanted: str,
    strategy: str,
    threshold: float,
    exclusive: bool,
) -> Scenes:
    """Find phrases."""
    return _scenes_after(
        session,
        lambda page: page.explorer.find(
            text,
            unwanted,
            strategy=strategy,  # type: ignore[arg-type]
            threshold=threshold or None,  # 0 stands for the model's own levels
            overlap="exclusive" if exclusive else "allow",
        ),
    )


def ask_again(session: Session | None, *options: Any) -> Any:
    """Find the same phrases with other settings; nothing if none were asked."""
    if session is None or session.explorer.board.question is None:
        return gr.skip(), gr.skip()
    question = session.explorer.board.question
    unwanted = ", ".join(question.keywords().get("exclude", []))
    return find(session, ", ".join(question.phrases), unwanted, *options)


def similar(session: Session | None) -> Scenes:
    """Find what is like the chosen object."""
    return _scenes_after(session, lambda page: page.explorer.similar())


def everything(session: Session | None) -> Iterator[tuple[Any, Any]]:
    """Find everything; tells how far it is while it works."""
    told_last = [0, 0]
    answer: list[Scenes] = []

    def note(done: int, total: int) -> None:
        told_last[:] = done, total

    def work() -> None:
        answer.append(_scenes_after(session, lambda page: page.explorer.everything(note)))

    worker = threading.Thread(target=work, name="everything", daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(_TELL_EVERY)
        if told_last[1] and worker.is_alive():
            share = f"{100 * told_last[0] // told_last[1]}%"
            yield {"progress": f"Looking for everything: {share}"}, gr.skip()
    yield answer[0]


def export_file(
    session: Session | None, format: ExportFormat, opacity: float, outline: bool
) -> tuple[str | None, Any]:
    """Make a file of what is shown: its path, and what went wrong."""
    if session is None:
        return None, gr.Markdown(no_session()["message"], visible=True)
    try:
        explorer = session.explorer
        result, photo = explorer.result(), explorer.photo
        assert photo is not None
        path = export(
            result, photo, format, session.new_file_folder(), opacity=opacity, outline=outline
        )
    except Exception as error:
        return None, gr.Markdown(told(error), visible=True)
    return str(path), gr.Markdown(visible=False)
