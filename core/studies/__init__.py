"""Designs of studies: which rows each run trains on, pure and seeded (METHOD.md, section 4).

The same seed gives the same plan on any machine: every draw has a generator of its own, seeded by the plan's seed and
by the number of the run, so that a plan of 78 mixtures begins with the 40 mixtures of a plan of 40.
"""

from core.studies.checks import check_plan
from core.studies.mixtures import random_mixtures, shortfalls
from core.studies.plans import PlannedRun, Source, base_run
from core.studies.steered import steered_mixtures
from core.studies.subsets import bins, comparison_runs, single_run, size_runs

__all__ = [
    "PlannedRun",
    "Source",
    "base_run",
    "bins",
    "check_plan",
    "comparison_runs",
    "random_mixtures",
    "shortfalls",
    "single_run",
    "size_runs",
    "steered_mixtures",
]
