"""PEFT knows the tuner after the import; that it does not before is tested with the fresh process of test_peft.py."""

import copy
import pickle

import peft
import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import PeftType, register_peft_method

from allocsearch.moelora import MoeLoraConfig, MoeLoraModel
from allocsearch.moelora.registration import add_peft_type, register


def test_the_member_behaves_like_a_native_one():
    member = PeftType.MOELORA
    assert member is PeftType("MOELORA") is PeftType["MOELORA"] is add_peft_type("MOELORA")
    assert member == "MOELORA"
    assert member.name == member.value == "MOELORA"
    assert list(PeftType).count(member) == 1
    assert isinstance(member, PeftType)
    assert "MOELORA" in list(PeftType)
    assert hash(member) == hash("MOELORA")
    assert copy.deepcopy(member) is pickle.loads(pickle.dumps(member)) is member


def test_peft_maps_the_type():
    assert PEFT_TYPE_TO_CONFIG_MAPPING["MOELORA"] is MoeLoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["MOELORA"] is MoeLoraModel
    assert PEFT_TYPE_TO_PREFIX_MAPPING["MOELORA"] == MoeLoraModel.prefix == "moelora_"
    register(MoeLoraConfig, MoeLoraModel)
    assert isinstance(peft.get_peft_config({"peft_type": "MOELORA", "allocation": "4"}), MoeLoraConfig)


def test_peft_still_refuses_names_that_its_enum_lacks():
    # The reason for `add_peft_type`: once this fails, PEFT has opened its enum, and that function can go.
    with pytest.raises(ValueError, match="Unknown PEFT type"):
        register_peft_method(name="newmethod", config_cls=MoeLoraConfig, model_cls=MoeLoraModel)
