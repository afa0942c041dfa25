"""Plans put together from what each target gets, in the fewest words."""

from collections.abc import Mapping

from allocsearch.core.allocation import LayerPlan, Sizes
from allocsearch.core.targets import GROUP_OF, GROUPS


def plan_of(sizes_of_target: Mapping[str, Sizes]) -> LayerPlan:
    """The plan that gives each target its sizes; a group whose targets all get the same is said once.

    `sizes_of_target` names every target that the layer has, with `()` for one that stays frozen: a group's plan would reach it.
    """
    parts: dict[str, Sizes] = {}
    for group in GROUPS:
        members = {name: tuple(sorted(sizes, reverse=True)) for name, sizes in sizes_of_target.items() if GROUP_OF[name] == group}
        if len(set(members.values())) == 1:
            parts[group] = next(iter(members.values()))
        else:
            parts |= members
    return LayerPlan(tuple(parts.items()))
