"""Search spaces and routing as YAML."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from allocsearch.core.geometry import Router, Routing
from allocsearch.core.layout import SELECTORS, Axis, Order, PartSpace, Sharing
from allocsearch.core.space import SpaceTemplate

SPACE_SCHEMA: Final = "allocsearch/space/v1"

# Strict: YAML's `yes` is a truth value, which pydantic would take for 1.
Positive = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Natural = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class Closed(BaseModel):
    """A document part: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True)


class ShareSpec(Closed):
    """`groups: n` or `tie: n`."""

    groups: Positive | None = None
    tie: Positive | None = None


class AxisSpec(Closed):
    """Listed values, who shares them (`model`, `groups: n` or `tie: n`) and their order over the depth."""

    choices: tuple[Natural, ...]
    share: Annotated[
        ShareSpec,
        BeforeValidator(lambda value: {} if value == "model" else value, json_schema_input_type=Literal["model"] | ShareSpec),
    ] = ShareSpec()
    order: Order = "free"

    def axis(self) -> Axis:
        """As a core value."""
        return Axis(self.choices, Sharing(groups=self.share.groups, tie=self.share.tie), self.order)

    @model_validator(mode="after")
    def _is_an_axis(self) -> "AxisSpec":
        self.axis()
        return self


class PartSpec(Closed):
    """How many experts of which rank a part of each layer may get."""

    rank: AxisSpec
    experts: AxisSpec | None = None
    per_expert: bool = False


def _selector(name: str) -> str:
    return PartSpace(name, Axis((1,))).selector


def _template(name: str, parts: dict[str, PartSpec], about: str = "") -> SpaceTemplate:
    spaces = (
        PartSpace(selector, part.rank.axis(), None if part.experts is None else part.experts.axis(), part.per_expert)
        for selector, part in parts.items()
    )
    return SpaceTemplate(name, tuple(spaces), about)


def _parts(parts: dict[str, PartSpec]) -> dict[str, PartSpec]:
    _template("parts", parts)
    return parts


class RoutingSpec(Closed):
    """Router, experts per token and targets."""

    router: Router = "topk"
    top_k: Positive | tuple[Positive, ...] = 2
    targets: tuple[str, ...] = ("attn", "ffn")
    swi_x: Natural = 4

    def routing(self) -> Routing:
        """As a core value."""
        return Routing(self.router, self.top_k, self.targets, self.swi_x)

    @model_validator(mode="after")
    def _is_a_routing(self) -> "RoutingSpec":
        self.routing()
        return self


class SpaceSpec(Closed):
    """A search space document."""

    schema_version: Literal["allocsearch/space/v1"] = Field(alias="schema")
    name: str
    about: str = ""
    parts: Annotated[
        dict[Annotated[str, AfterValidator(_selector)], PartSpec],
        AfterValidator(_parts),
        Field(json_schema_extra={"propertyNames": {"enum": list(SELECTORS)}}),
    ]
    routing: RoutingSpec | None = None

    def template(self) -> SpaceTemplate:
        """As a core value."""
        return _template(self.name, self.parts, self.about)
