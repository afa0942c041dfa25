"""Mixtures of LoRA experts, with numbers and ranks per layer, as a PEFT tuner. Importing this package registers it with PEFT."""

from allocsearch.moelora.config import MoeLoraConfig
from allocsearch.moelora.layer import MoeLoraLinear
from allocsearch.moelora.model import MoeLoraModel, balance_loss
from allocsearch.moelora.mola_checkpoint import load_mola
from allocsearch.moelora.registration import register

__all__ = ["MoeLoraConfig", "MoeLoraLinear", "MoeLoraModel", "balance_loss", "load_mola"]

register(MoeLoraConfig, MoeLoraModel)
