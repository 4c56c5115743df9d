"""Load instruction data: recognise a file, map its rows to examples, stream them as Arrow batches.

The usual way: ``open_source`` (or ``open_hub``), ``detect_shape`` or a ``ColumnMapping`` of the user's, ``preview``,
then ``read_examples``, whose batches go to the store and whose ``report`` goes to the user.
"""

from core.formats.chat import Conversation, Turn
from core.formats.hub import open_hub
from core.formats.importing import EXAMPLE_SCHEMA, ExampleReader, preview, read_examples
from core.formats.names import resolve_server_path, safe_name
from core.formats.opening import open_source
from core.formats.references import (
    JOINED,
    NO_REFERENCE,
    EvaluationMapping,
    ReferencesMapping,
    TurnsMapping,
    detect_evaluation_shape,
    join_references,
)
from core.formats.report import ImportReport, ReportRow, csv_cell
from core.formats.rows import BadRow, Reading, Source
from core.formats.shapes import ChatMapping, ColumnMapping, InstancesMapping, RowMapping, Shape, detect_shape

__all__ = [
    "EXAMPLE_SCHEMA",
    "JOINED",
    "NO_REFERENCE",
    "BadRow",
    "ChatMapping",
    "ColumnMapping",
    "Conversation",
    "EvaluationMapping",
    "ExampleReader",
    "ImportReport",
    "InstancesMapping",
    "Reading",
    "ReferencesMapping",
    "ReportRow",
    "RowMapping",
    "Shape",
    "Source",
    "Turn",
    "TurnsMapping",
    "csv_cell",
    "detect_evaluation_shape",
    "detect_shape",
    "join_references",
    "open_hub",
    "open_source",
    "preview",
    "read_examples",
    "resolve_server_path",
    "safe_name",
]
