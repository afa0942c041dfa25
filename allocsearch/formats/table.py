"""Every format of others that an allocation can be exported to."""

from collections.abc import Callable, Mapping
from typing import Final

from allocsearch.formats import guilomo, lora, moa, mola
from allocsearch.formats.recipe import Document, Recipe

FORMATS: Final[Mapping[str, Callable[[Recipe], Document]]] = {
    "mola": mola.export,
    "guilomo": guilomo.export,
    "moa": moa.export,
    "lora": lora.export,
}
