"""Search spaces and routing as YAML."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from allocsearch.core.geometry import Router, Routing
from allocsearch.core.layout import Axis, Order, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate

SPACE_SCHEMA: Final = "allocsearch/space/v1"

Positive = Annotated[int, Field(ge=1)]


class Closed(BaseModel):
    """A document part: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class ShareSpec(Closed):
    """`groups: n` or `tie: n`."""

    groups: Positive | None = None
    tie: Positive | None = None


class AxisSpec(Closed):
    """Listed values, who shares them (`model`, `groups: n` or `tie: n`) and their order over the depth."""

    choices: tuple[int, ...]
    share: Annotated[ShareSpec, BeforeValidator(lambda value: {} if value == "model" else value)] = ShareSpec()
    order: Order = "free"

    def axis(self) -> Axis:
        """As a core value."""
        return Axis(self.choices, Sharing(groups=self.share.groups, tie=self.share.tie), self.order)


class PartSpec(Closed):
    """How many experts of which rank a part of each layer may get."""

    rank: AxisSpec
    experts: AxisSpec | None = None
    per_expert: bool = False


class RoutingSpec(Closed):
    """Router, experts per token and targets."""

    router: Router = "topk"
    top_k: int | tuple[int, ...] = 2
    targets: tuple[str, ...] = ("attn", "ffn")
    swi_x: int = 4

    def routing(self) -> Routing:
        """As a core value."""
        return Routing(self.router, self.top_k, self.targets, self.swi_x)


class SpaceSpec(Closed):
    """A search space document."""

    schema_version: Literal["allocsearch/space/v1"] = Field(alias="schema")
    name: str
    about: str = ""
    parts: dict[str, PartSpec]
    routing: RoutingSpec | None = None

    def template(self) -> SpaceTemplate:
        """As a core value."""
        parts = tuple(
            PartSpace(selector, part.rank.axis(), None if part.experts is None else part.experts.axis(), part.per_expert)
            for selector, part in self.parts.items()
        )
        return SpaceTemplate(self.name, parts, self.about)

    @model_validator(mode="after")
    def _is_a_space(self) -> "SpaceSpec":
        self.template()
        return self
