"""What may be wrong in a data set: one check per function, yielding findings in words and the command that mends each.

Errors are what would make scores or labels false, or what `open_dataset` refuses; warnings are what may be meant. A
finding never hides another: where one cause explains several facts (binary masks, ids shifted by one), the cause is
told and not its consequences. `files` asks about files and pairs, `ids` about what masks hold, `places` about where
labels lie, `names` about the list of classes, `sides` about what is trained on and what is scored.
"""

from collections.abc import Callable, Iterable

from terrazzo.data.chart import Chart
from terrazzo.data.findings import files, ids, names, places, sides
from terrazzo.data.findings.finding import Finding, Severity

__all__ = ["Finding", "Severity", "find"]

_CHECKS: tuple[Callable[[Chart], Iterable[Finding]], ...] = (
    files.layout,
    files.pairing,
    files.unreadable,
    files.forms,
    places.sizes,
    places.shifts,
    ids.unnamed,
    ids.colors,
    ids.values,
    ids.depth,
    places.blends,
    places.frames,
    places.specks,
    sides.duplicates,
    sides.sequences_apart,
    ids.nothing_in_them,
    names.twins,
    names.absent,
    names.imbalance,
)


def find(chart: Chart) -> tuple[Finding, ...]:
    """Return all that is wrong in an examined data set: errors first, then by how much of the score they cost."""
    findings = [finding for look in _CHECKS for finding in look(chart)]
    return tuple(sorted(findings, key=lambda one: (one.severity != "error", -round(one.cost, 3))))
