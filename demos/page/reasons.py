"""Why these masks, or why none: the library's explanation as a sentence, a picture and a table."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .messages import told
from .sessions import Session, no_session

__all__ = ["add_reasons", "why"]

_HEAD = ["phrase", "what", "score", "gate", "why", "evidence"]


def add_reasons() -> list[gr.blocks.Block]:
    """Lay out the place where reasons appear; what `why` fills."""
    with gr.Accordion("Why these masks?", open=False, visible=False, elem_id="reasons") as frame:
        sentences = gr.Textbox(label="In words", lines=2, interactive=False, elem_id="sentences")
        picture = gr.Image(
            label="Map of the phrase, kept and dropped masks, sweep of the threshold",
            show_label=False,
            format="png",
            interactive=False,
            elem_id="why-picture",
        )
        table = gr.Dataframe(
            headers=_HEAD, interactive=False, wrap=True, label="Every mask that was considered"
        )
    return [frame, sentences, picture, table]


def why(session: Session | None) -> tuple[Any, ...]:
    """The reasons of the last phrases."""
    opened = gr.Accordion(visible=True, open=True)
    if session is None:
        return opened, no_session()["message"], None, None
    try:
        reasons = session.explorer.why()
        words = "\n".join(reasons.sentence(phrase) for phrase in reasons.phrases)
        rows = [list(row.cells()) for row in reasons.short_table()]
        return opened, words, reasons.picture(), rows
    except Exception as error:
        return opened, told(error), None, None
