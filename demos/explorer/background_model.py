"""Loads the model in the background, so that the page opens at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

from textsam.errors import TextSamError

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["ModelInBackground"]

_LOG = logging.getLogger(__name__)


class ModelInBackground:
    """A model that is being loaded, or has been.

    Attributes:
        name: The model's name, as shown on the page.
        seconds: How long loading took; None before it is done.
    """

    def __init__(self, name: str, load: Callable[[], TextSAM]) -> None:
        self.name = name
        self.seconds: float | None = None
        self._model: Future[TextSAM] = Future()
        # A daemon, so that Ctrl-C does not wait for a large model.
        threading.Thread(target=self._run, args=(load,), name=f"load {name}", daemon=True).start()

    def _run(self, load: Callable[[], TextSAM]) -> None:
        start = time.perf_counter()
        try:
            model = load()
        except BaseException as error:
            _LOG.error("%s could not be loaded: %s", self.name, error)
            self._model.set_exception(error)
        else:
            self.seconds = time.perf_counter() - start
            self._model.set_result(model)

    def __call__(self) -> TextSAM:
        """The model; waits until it is loaded.

        Raises:
            TextSamError: It could not be loaded.
        """
        try:
            return self._model.result()
        except TextSamError:
            raise
        except Exception as error:
            raise TextSamError(f"The model {self.name} could not be loaded: {error}") from error

    @property
    def state(self) -> Literal["loading", "ready", "failed"]:
        """How far loading is."""
        if not self._model.done():
            return "loading"
        return "failed" if self._model.exception() is not None else "ready"
