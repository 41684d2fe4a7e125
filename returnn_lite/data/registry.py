"""From a dataset's dict in a config, ``{"class": "HDFDataset", "files": [...]}``, to the dataset."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from returnn_lite.config.decode import decode_value, describe, meant_options
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
    for _, message in dataset_mistakes(options):
        raise DataError(f"{name}: {message}")
    cls = DATASETS[options["class"]]
    own, order = _option_types(cls)
    values = {key: value for key, value in options.items() if key != "class"}
    decoded = {key: decode_value((own | order)[key], value) for key, value in values.items()}
    try:
        ordering = SeqOrdering(**{key: value for key, value in decoded.items() if key in order})
        return cls(**{key: value for key, value in decoded.items() if key in own}, ordering=ordering)
    except (OrderingError, DataError) as error:
        raise DataError(f"{name}: {error}") from error


def dataset_mistakes(options: object) -> Iterator[tuple[str, str]]:
    """What is wrong with a dataset's dict, without reading any data: the option and a message."""
    if not isinstance(options, Mapping) or not isinstance(options.get("class"), str):
        yield "class", "a dataset is a dict with a 'class', for example {'class': 'HDFDataset', ...}"
        return
    class_name = options["class"]
    if class_name not in DATASETS:
        yield "class", _unknown_class(class_name)
        return
    own, order = _option_types(DATASETS[class_name])
    known = own | order
    misspelt = meant_options([key for key in options if key != "class"], sorted(known))
    for key, value in options.items():
        if key != "class":
            yield from _option_mistake(class_name, key, value, known)
    yield from _order_mistake(options)
    for key, parameter in inspect.signature(DATASETS[class_name]).parameters.items():
        required = key in own and parameter.default is inspect.Parameter.empty
        if required and key not in options and key not in misspelt:
            yield key, f"{class_name} needs the option '{key}' ({describe(own[key])})"


def _option_types(cls: Callable[..., Dataset]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The types of a class's own options, and of those about the order of sequences."""
    parameters = inspect.signature(cls, eval_str=True).parameters
    own = {key: parameter.annotation for key, parameter in parameters.items() if key != "ordering"}
    hints = typing.get_type_hints(SeqOrdering)
    return own, {field.name: hints[field.name] for field in dataclasses.fields(SeqOrdering) if field.init}


def _order_mistake(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the name of a sequence order, as far as its type is right."""
    order = options.get("seq_ordering")
    if isinstance(order, str):
        try:
            SeqOrdering(order)
        except OrderingError as error:
            yield "seq_ordering", str(error)


def _unknown_class(class_name: str) -> str:
    if class_name in _OF_RETURNN:
        return f"the dataset class '{class_name}' is not supported. {_OF_RETURNN[class_name]}."
    hint = nearest_hint(class_name, list(DATASETS)) or f" There are {', '.join(DATASETS)}."
    return f"there is no dataset class '{class_name}'.{hint}"


def _option_mistake(class_name: str, key: str, value: Any, known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if key not in known:
        hint = f" {_ELSEWHERE[key]}." if key in _ELSEWHERE else nearest_hint(key, list(known))
        yield key, f"{class_name} has no option '{key}'.{hint or f' It has {sorted(known)}.'}"
        return
    try:
        decode_value(known[key], value)
    except ValueError as error:
        hint = f" {error}" if str(error) else ""
        yield key, f"{class_name}.{key}: expected {describe(known[key])}, got {value!r}.{hint}"
