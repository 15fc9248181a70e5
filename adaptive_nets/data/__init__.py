"""Data sets, read and checked with NumPy; only prepared sets need TFDS."""

from adaptive_nets.data.catalogue import CATALOGUE, lookup
from adaptive_nets.data.check import Finding, build_dataset, import_dataset, survey, verify
from adaptive_nets.data.entries import DatasetInfo, Form, OfficialFile
from adaptive_nets.data.errors import (
    AbsentDataError,
    AlreadyImportedError,
    DamagedDataError,
    PartialDataError,
)
from adaptive_nets.data.folders import data_root
from adaptive_nets.data.sources import load, random_labels
from adaptive_nets.data.splits import Dataset, Split, StreamedSplit

__all__ = [
    "CATALOGUE",
    "AbsentDataError",
    "AlreadyImportedError",
    "DamagedDataError",
    "Dataset",
    "DatasetInfo",
    "Finding",
    "Form",
    "OfficialFile",
    "PartialDataError",
    "Split",
    "StreamedSplit",
    "build_dataset",
    "data_root",
    "import_dataset",
    "load",
    "lookup",
    "random_labels",
    "survey",
    "verify",
]
