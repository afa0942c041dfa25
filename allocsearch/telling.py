"""What a storage holds of a study, put together: its trials, its confirmation and its calibration, as its own spec wants them read."""

from allocsearch.backends.catalog import Catalog
from allocsearch.backends.study_record import StudyRecord
from allocsearch.evidence import Evidence, calibration_of, evidence
from allocsearch.report import Report, report
from allocsearch.search import results
from allocsearch.search.results import Pick


def proof(catalog: Catalog, record: StudyRecord, *, pick: Pick = "best") -> Evidence | None:
    """What the test rows say of the winner that `pick` chooses, by the study's own metric and margin; None where it was not confirmed.

    Raises:
        InputError: where no trial has finished.
    """
    metric = record.spec.metric
    margin = record.confirmation.margin if metric == "accuracy" else None
    calibration = calibration_of(catalog, record.spec)
    return evidence(
        catalog,
        record,
        trial=results.picked(record.trials, pick, metric).trial.number,
        metric=metric,
        margin=None if margin is None else margin / 100,
        noise=None if calibration is None else calibration.signal(metric).variances,
    )


def tell(catalog: Catalog, record: StudyRecord, *, pick: Pick = "best") -> Report:
    """All that is known of a study with at least one finished trial.

    Raises:
        InputError: where no trial has finished.
    """
    found = proof(catalog, record, pick=pick)
    return report(record, found, calibration_of(catalog, record.spec), metric=record.spec.metric, pick=pick)
