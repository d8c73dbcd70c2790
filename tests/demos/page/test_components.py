from __future__ import annotations

import pytest

pytest.importorskip("gradio", reason="the explorer needs gradio")

from demos.explorer.photo_cache import example_photos
from demos.page.explore_tab import make_canvas, make_object_list


def test_templates_hold_nothing_that_gradio_would_evaluate() -> None:
    """HTML and CSS are JavaScript template strings and Handlebars to Gradio; scripts are code."""
    for component in (
        make_canvas(example_photos(), elem_id="canvas"),
        make_object_list(elem_id="objects"),
    ):
        for template in (component.html_template, component.css_template):
            assert len(template) > 200
            found = [mark for mark in ("\\", "${", "`", "{{", "@@") if mark in template]
            assert not found, f"{component.elem_id} holds {found}"
        assert "trigger(" in component.js_on_load
        assert "\\" not in component.js_on_load, component.elem_id
