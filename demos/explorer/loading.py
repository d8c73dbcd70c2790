"""The model, loaded beside the page: people see the page at once, and what it waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from textsam.errors import TextSamError

if TYPE_CHECKING:
    from textsam.inference.model import TextSAM

__all__ = ["ModelInBackground"]

_LOG = logging.getLogger(__name__)


class ModelInBackground:
    """A model that is being loaded, or was.

    Attributes:
        name: What is loaded.
        seconds: How long it took; None before.
    """

    def __init__(self, name: str, load: Callable[[], TextSAM]) -> None:
        """Begin to load.

        Args:
            name: What to call it.
            load: Loads it.
        """
        self.name = name
        self.seconds: float | None = None
        self._model: Future[TextSAM] = Future()
        self._load = load
        threading.Thread(target=self._run, name=f"load {name}", daemon=True).start()

    def _run(self) -> None:
        start = time.perf_counter()
        try:
            model = self._load()
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
    def state(self) -> str:
        """One of "loading", "ready", "failed"."""
        if not self._model.done():
            return "loading"
        return "failed" if self._model.exception() is not None else "ready"
