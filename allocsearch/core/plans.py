"""Plans put together from what each target gets, in the fewest words."""

from collections.abc import Iterable, Mapping
from itertools import zip_longest

from allocsearch.core.allocation import Allocation, LayerPlan, Sizes
from allocsearch.core.errors import InputError
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


def covering(allocations: Iterable[Allocation]) -> Allocation:
    """The smallest allocation that holds all of these: on every target the most experts, and the i-th as large as the largest i-th.

    Raises:
        InputError: where there are none, or their numbers of layers differ.
    """
    given = tuple(allocations)
    if len({len(allocation) for allocation in given}) != 1:
        raise InputError(f"allocations must have one number of layers to be covered, but got {[len(allocation) for allocation in given]}")
    return Allocation(tuple(_covering_plan(plans) for plans in zip(*given, strict=True)))


def _covering_plan(plans: tuple[LayerPlan, ...]) -> LayerPlan:
    names = {*GROUPS, *(name for plan in plans for name, _ in plan.parts)}
    return LayerPlan(tuple((name, tuple(map(max, zip_longest(*(plan.sizes(name) for plan in plans), fillvalue=0)))) for name in names))
