"""What the codec consists of, as arms that leave parts out. Fill in switches here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from _common import REPOSITORY

from MedEnhanceLib.unicompress import CompressConfig

SVT = "SVT-AV1"
_MODELS = REPOSITORY / "Resources" / "models"


def shipped_models() -> list[Path]:
    """The weights that ship for the codec."""
    return sorted(_MODELS.glob("codec-*/models/*.safetensors"))


@dataclass(frozen=True)
class Arm:
    """The codec with parts switched off.

    config: fields of CompressConfig that do so. without: roles of models that it does not find,
    or SVT.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """Why this arm cannot be distinguished from all of it; nothing where it can."""
        unknown = self.config.keys() - {known.name for known in fields(CompressConfig)}
        if unknown:
            return f"the codec has no switch {', '.join(sorted(unknown))}"
        shipped = {path.stem for path in shipped_models()} | {SVT}
        if self.without and not shipped & set(self.without):
            return f"no model ships for: {', '.join(self.without)}"
        return ""


WITHOUT_MODELS, WITHOUT_SVT, FAST = "no models", f"no {SVT}", "fast"
ALL = "all"
#: From the plainest to all of it.
ARMS = (
    Arm(WITHOUT_MODELS, without=("predictor", "implicit")),
    Arm(WITHOUT_SVT, without=(SVT,)),
    Arm(FAST, config={"speed": "fast"}),
    Arm(ALL),
)
