"""Datasets, the order of their sequences, and batches. NumPy only: TensorFlow is not imported here."""

from returnn_lite.data.batching import Batch, BatchOptions, batches
from returnn_lite.data.chunking import Chunking, parse_chunking
from returnn_lite.data.dataset import DataError, DataKeySpec, Dataset, Sequence
from returnn_lite.data.hdf import HDFDataset, HdfKey, HdfWriter, write_hdf
from returnn_lite.data.ordering import SeqOrdering
from returnn_lite.data.registry import dataset_mistakes, make_dataset

__all__ = [
    "Batch",
    "BatchOptions",
    "Chunking",
    "DataError",
    "DataKeySpec",
    "Dataset",
    "HDFDataset",
    "HdfKey",
    "HdfWriter",
    "SeqOrdering",
    "Sequence",
    "batches",
    "dataset_mistakes",
    "make_dataset",
    "parse_chunking",
    "write_hdf",
]
