"""Makes PEFT know this tuner.

PEFT's `register_peft_method` is public, but takes only names that the enum `PeftType` has, and an enum with members cannot be subclassed.
So the member is added in place. This is the one spot that touches the enum's internals.
"""

from typing import Any, Final

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, register_peft_method

NAME: Final = "moelora"
PREFIX: Final = "moelora_"
"""Part of the name of every trainable parameter; PEFT finds, saves and loads an adapter's weights by it."""


def add_peft_type(name: str) -> Any:
    """The member `name` of `PeftType`, added if it is not there yet."""
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_, member._value_, member.__objclass__ = name, name, PeftType
        member._sort_order_ = len(PeftType.__members__)
        type.__setattr__(PeftType, name, member)  # before the map knows it: enums refuse to rebind a member
        PeftType._member_names_.append(name)
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
    return PeftType.__members__[name]


def register(config_cls: type, model_cls: type) -> None:
    """Register the tuner; a second call does nothing."""
    if add_peft_type(NAME.upper()) not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name=NAME, config_cls=config_cls, model_cls=model_cls, prefix=PREFIX)
