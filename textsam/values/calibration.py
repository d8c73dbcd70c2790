"""The file of a model's calibration: a `Curve` from evidence to probability for each strategy.

`textsam calibrate` fits it on your own photos.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from textsam.errors import WeightsError
from textsam.values.files import write_atomically
from textsam.values.judge import Curve, PhraseLevels, StrategyCurves
from textsam.values.prompts import plain_phrase

__all__ = ["CALIBRATION_FILE", "Calibration", "read_curves"]

CALIBRATION_FILE = "calibration.json"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The curves of a model.

    Attributes:
        strategies: Curves by the strategy's name.
        fitted_on: Data sets and figures of the fit, for people.
    """

    strategies: Mapping[str, StrategyCurves] = field(default_factory=dict)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write the file; it is complete or not there at all."""
        content = {"format": _FORMAT, **asdict(self)}
        for curves in content["strategies"].values():
            del curves["phrase"]
            # Left out where there are none. A textsam that does not know them uses the common ones.
            if not curves["phrases"]:
                del curves["phrases"]
        data = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        return write_atomically(Path(path), data.encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; a `WeightsError` for another file or a newer format."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise WeightsError(
                    f"{path} has calibration format {content['format']}; this textsam reads "
                    f"{_FORMAT}. Type: pip install -U textsam, or fit it again: textsam calibrate"
                )
            strategies = {name: read_curves(raw) for name, raw in content["strategies"].items()}
            return cls(strategies=strategies, fitted_on=dict(content["fitted_on"]))
        except WeightsError:  # a ValueError, too, which the next clause would catch
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} is no calibration file ({type(error).__name__}: {error}). "
                "Type: textsam calibrate DATA --model ..."
            ) from error


def read_curves(raw: Mapping[str, Any]) -> StrategyCurves:
    """The curves of one strategy, as the file has them."""
    return StrategyCurves(
        presence=_curve(raw["presence"]),
        score=_curve(raw["score"]),
        min_presence=_level(raw["min_presence"]),
        min_score=_level(raw["min_score"]),
        phrases={
            plain_phrase(phrase).casefold(): PhraseLevels(
                min_presence=_level(own["min_presence"]), min_score=_level(own["min_score"])
            )
            for phrase, own in raw.get("phrases", {}).items()
        },
    )


def _curve(raw: Mapping[str, Any]) -> Curve:
    return Curve(
        weights={name: _finite(weight) for name, weight in raw["weights"].items()},
        bias=_finite(raw["bias"]),
    )


def _level(raw: Any) -> float:
    level = _finite(raw)
    if not 0 <= level <= 1:
        raise ValueError(f"level {level} is no probability")
    return level


def _finite(raw: Any) -> float:
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(f"got {value}; wanted a finite number")
    return value
