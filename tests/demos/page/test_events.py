from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="the explorer needs gradio")

from demos.explorer.photo_cache import PhotoCache, UserPhoto
from demos.page import events
from demos.page.sessions import Session


@pytest.fixture
def session(photos: PhotoCache, photo: UserPhoto) -> Session:
    session = Session(photos)
    session.explorer.open(photo)
    session._photo_url = "photo.jpg"
    return session


def act(session: Session, **data: object) -> dict:
    canvas, _ = events.act(session, SimpleNamespace(_data=data))
    return canvas


def test_the_page_calls_methods_by_name(session: Session) -> None:
    scene = act(session, do="click", x=20, y=20, foreground=True)
    assert [item["name"] for item in scene["objects"]] == ["object 1"] and not scene["error"]
    assert act(session, do="rename", number=1, name="left")["objects"][0]["name"] == "left"
    assert not act(session, do="undo")["error"]


@pytest.mark.parametrize("action", ["open", "_commit", "__init__", "photos", None])
def test_a_forged_request_calls_nothing_else(session: Session, action: object) -> None:
    board = session.explorer.board
    scene = act(session, do=action)
    assert scene["error"] and "wanted one of" in scene["message"]
    assert session.explorer.board is board


def test_a_request_without_its_arguments_is_an_error_message(session: Session) -> None:
    scene = act(session, do="click", x=20)
    assert scene["error"] and "Something went wrong" in scene["message"]


def test_an_expired_session_says_so() -> None:
    scene = act(None, do="undo")  # type: ignore[arg-type]
    assert scene["error"] and "idle" in scene["message"]
