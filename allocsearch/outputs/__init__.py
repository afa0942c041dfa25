"""What each command prints with `--json`: the shapes that other programs may rely on.

Views build the documents; these closed models are where their schemas come from, and the tests hold every document that a command prints
against its schema.
"""

from typing import Any, Final

from allocsearch.outputs.evidence import CompareOutput, EvidenceOutput
from allocsearch.outputs.listed import ChecksOutput, CostOutput, ModelsOutput, PulledOutput, SpacesOutput, StudiesOutput, ValidateOutput
from allocsearch.outputs.planned import PlanOutput
from allocsearch.outputs.studying import CalibrateOutput, FrontOutput, RunOutput, StatusOutput, StudyNames
from allocsearch.outputs.tuned import EvaluateOutput, ExportOutput, HarnessOutput, TrainOutput

OUTPUTS: Final[dict[str, Any]] = {
    "calibrate": CalibrateOutput,
    "compare": CompareOutput | EvidenceOutput,
    "confirm": RunOutput,
    "cost": CostOutput,
    "db check": ChecksOutput,
    "db upgrade": ChecksOutput,
    "doctor": ChecksOutput,
    "evaluate": EvaluateOutput | HarnessOutput,
    "export": ExportOutput,
    "front": FrontOutput,
    "models": ModelsOutput,
    "models pull": PulledOutput,
    "resume": RunOutput,
    "run": RunOutput,
    "run --dry-run": PlanOutput,
    "spaces": SpacesOutput,
    "status": StatusOutput | StudyNames,
    "studies": StudiesOutput,
    "train": TrainOutput,
    "validate": ValidateOutput,
}
"""By command."""
