"""From a dataset's dict in a config, ``{"class": "HDFDataset", "files": [...]}``, to the dataset."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from returnn_lite.config.decode import decode_value, describe
from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.data.artificial import CopyTaskDataset, DummyDataset, StaticDataset, Task12AXDataset
from returnn_lite.data.cmudict import CmuDictDataset
from returnn_lite.data.dataset import DataError, Dataset
from returnn_lite.data.hdf import HDFDataset
from returnn_lite.data.ordering import OrderingError, SeqOrdering
from returnn_lite.data.source_text import SourceTextDataset
from returnn_lite.data.text import TextDataset, TextPairDataset

DATASETS: Mapping[str, Callable[..., Dataset]] = {
    cls.__name__: cls
    for cls in (
        CmuDictDataset,
        CopyTaskDataset,
        DummyDataset,
        HDFDataset,
        SourceTextDataset,
        StaticDataset,
        Task12AXDataset,
        TextDataset,
        TextPairDataset,
    )
}

_WRITE_HDF = "Write its sequences to HDF files with RETURNN's hdf_dump tool and use HDFDataset"
_OF_RETURNN = {
    "ExternSprintDataset": _WRITE_HDF,
    "SprintDataset": _WRITE_HDF,
    "SprintCacheDataset": _WRITE_HDF,
    "OggZipDataset": _WRITE_HDF,
    "LibriSpeechCorpus": _WRITE_HDF,
    "TimitDataset": _WRITE_HDF,
    "NltkTimitDataset": _WRITE_HDF,
    "MetaDataset": "Write the sequences of all its datasets to one HDF file and use HDFDataset",
    "CombinedDataset": "Write the sequences of all its datasets to HDF files and use HDFDataset",
    "ConcatDataset": "HDFDataset reads several files one after the other",
    "TranslationDataset": "Use TextPairDataset",
    "LmDataset": "Use TextDataset",
    "BytesDataset": "Use TextDataset with level: char",
}
_ELSEWHERE = {
    "chunking": "Give 'chunking' in the config itself; it holds for training",
    "min_chunk_size": "Give 'min_chunk_size' in the config itself",
    "chunking_variance": "Chunks of random size are not supported; leave it out",
    "window": "Use a layer of class window",
    "context_window": "Use a layer of class window",
    "estimated_num_seqs": "The number of sequences is known; leave it out",
    "shuffle_frames_of_nseqs": "Shuffling frames is not supported; leave it out",
    "unique_seq_tags": "Leave it out",
    "seq_order_seq_lens_file": "Lengths come from the data; leave it out",
    "use_cache_manager": "There is no cache manager; leave it out",
}


def make_dataset(options: Mapping[str, Any], name: str = "dataset") -> Dataset:
    """The dataset that a config's dict describes.

    `name` is the config key, for messages. Raises DataError for an unknown class or option, a value of the wrong type,
    or data that cannot be read.
    """
    if not isinstance(options, Mapping) or not isinstance(options.get("class"), str):
        raise DataError(f"{name}: a dataset is a dict with a 'class', for example {{'class': 'HDFDataset', ...}}")
    values = dict(options)
    cls = _dataset_class(values.pop("class"), name)
    signature = inspect.signature(cls, eval_str=True)
    parameters = {key: p for key, p in signature.parameters.items() if key != "ordering"}
    hints = {key: p.annotation for key, p in parameters.items()}
    order_hints = typing.get_type_hints(SeqOrdering)
    order_fields = [field.name for field in dataclasses.fields(SeqOrdering) if field.init]
    known = {**{key: hints[key] for key in parameters}, **{key: order_hints[key] for key in order_fields}}
    decoded = {key: _option(name, cls, key, value, known) for key, value in values.items()}
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in decoded:
            raise DataError(f"{name}: {cls.__name__} needs the option '{key}' ({describe(hints[key])})")
    try:
        ordering = SeqOrdering(**{key: value for key, value in decoded.items() if key in order_fields})
        own = {key: value for key, value in decoded.items() if key in parameters}
        return cls(**own, ordering=ordering)
    except (OrderingError, DataError) as error:
        raise DataError(f"{name}: {error}") from error


def _dataset_class(class_name: str, name: str) -> Callable[..., Dataset]:
    if class_name in DATASETS:
        return DATASETS[class_name]
    if class_name in _OF_RETURNN:
        raise DataError(f"{name}: the dataset class '{class_name}' is not supported. {_OF_RETURNN[class_name]}.")
    hint = nearest_hint(class_name, list(DATASETS)) or f" There are {', '.join(DATASETS)}."
    raise DataError(f"{name}: there is no dataset class '{class_name}'.{hint}")


def _option(name: str, cls: Callable[..., Dataset], key: str, value: Any, known: Mapping[str, Any]) -> Any:
    if key not in known:
        hint = f" {_ELSEWHERE[key]}." if key in _ELSEWHERE else nearest_hint(key, list(known))
        raise DataError(f"{name}: {cls.__name__} has no option '{key}'.{hint or f' It has {sorted(known)}.'}")
    try:
        return decode_value(known[key], value)
    except ValueError as error:
        hint = f" {error}" if str(error) else ""
        message = f"{name}: {cls.__name__}.{key}: expected {describe(known[key])}, got {value!r}.{hint}"
        raise DataError(message) from error
