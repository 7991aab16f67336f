"""The premises of the papers, measured on models whose lineage is known.

Each file is one premise: what is claimed, how it is measured, and against which controls.
"""

from kinprint.bench.premises.records import ROSTERS, Premise, PremisesResult, Roster
from kinprint.bench.premises.run import measure, write

__all__ = ["ROSTERS", "Premise", "PremisesResult", "Roster", "measure", "write"]
