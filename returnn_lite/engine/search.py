"""Task search: beam search over a dataset, a file of hypotheses, and error rates."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from returnn_lite.config.diagnostics import ConfigError, Diagnostic
from returnn_lite.data import BatchOptions, DataError, Dataset, make_dataset
from returnn_lite.data.batching import plan
from returnn_lite.engine.error_rates import ErrorRates, error_rates
from returnn_lite.engine.errors import EngineError
from returnn_lite.engine.feeding import about, check_dataset, computing, feeds, signature
from returnn_lite.engine.files import require_writable, write_text
from returnn_lite.engine.models import load_for_inference
from returnn_lite.engine.options import BatchingOptions, ModelOptions, SearchOptions, dataset_options, engine_options
from returnn_lite.engine.progress import progress
from returnn_lite.engine.runnable import Compile, DecodedLabels, Runnable, Tensors
from returnn_lite.engine.session import session

_log = logging.getLogger(__name__)
EXAMPLES = 10


@dataclass(frozen=True)
class Decoded:
    """The hypotheses of one sequence, best first: their labels, their scores (log probabilities, 0 if unknown), and
    whether the layer has a beam (else there is exactly one)."""

    tag: str
    labels: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]
    is_beam: bool


@dataclass(frozen=True)
class SearchResult:
    """The hypotheses of each layer in corpus order, and the error rates if there are right answers to compare with."""

    decoded: Mapping[str, Sequence[Decoded]]
    rates: Mapping[str, ErrorRates]


def run_search(config: Mapping[str, Any], compile_mode: Compile) -> SearchResult:
    """Decodes the dataset `search_data` (default `eval`, then `dev`) with the last checkpoint, or that of `load_epoch`.

    Writes `search_output_file` and logs error rates and some examples. Raises ConfigError, or EngineError if the file
    exists already: that is found out before the search.
    """
    options = engine_options(SearchOptions, config)
    model = engine_options(ModelOptions, config)
    batching = engine_options(BatchingOptions, config).for_all()
    layers = (
        [options.search_output_layer] if isinstance(options.search_output_layer, str) else options.search_output_layer
    )
    if options.search_output_file is not None:
        _check_output(options.search_output_file, options.search_output_file_format, layers)
    name, described = chosen_data(config, options.search_data, ("eval", "dev"), "search_data")
    dataset = make_dataset(dataset_options(config, described), name)
    _check_tags(dataset, options)
    _check_target(dataset, options.search_target, name)
    with session(config, model, "search"):
        runnable = compile_mode("search", layers)
        load_for_inference(model, runnable)
        decoded = Decoder(runnable, layers).decode(dataset, batching, name)
        target = options.search_target or options.target
        names = _label_names(runnable, layers[0], dataset, target)
        if options.search_output_file is not None:
            write_hypotheses(options.search_output_file, options.search_output_file_format, decoded, names)
        rates = {layer: _rates(found, names, dataset, target) for layer, found in decoded.items()}
        known = {layer: rate for layer, rate in rates.items() if rate is not None}
        _log_examples(decoded[layers[0]], names, dataset, target)
        for layer, rate in known.items():
            _log.info("%s: %s", layer, rate)
    return SearchResult(decoded, known)


def _check_output(path: str, form: str, layers: Sequence[str]) -> None:
    """Raises EngineError if the hypotheses could not be written in the end."""
    if Path(path).exists():
        raise EngineError(f"search_output_file '{path}' exists already; remove it or rename it")
    if form == "txt" and len(layers) > 1:
        raise EngineError("search_output_file_format txt takes one search_output_layer; use py for several")
    require_writable(path, "search_output_file")


def _check_target(dataset: Dataset, target: str | None, name: str) -> None:
    """Raises ConfigError if the gold labels shall come from a data key that does not exist."""
    if target is not None and target not in dataset.keys:
        message = f"'{name}' has no data key '{target}'"
        raise ConfigError([Diagnostic(None, ("search_target",), message, f"It has {', '.join(dataset.keys)}.")])


def _check_tags(dataset: Dataset, options: SearchOptions) -> None:
    """Raises EngineError if the file would have one entry for several sequences."""
    if options.search_output_file is None or options.search_output_file_format != "py":
        return
    tags = Counter(dataset.tag(index) for index in set(dataset.epoch_order(1).tolist()))
    twice = [tag for tag, count in tags.items() if count > 1]
    if twice:
        raise EngineError(
            f"several sequences have the tag '{twice[0]}'; search_output_file_format py has one entry a tag, use txt"
        )


def chosen_data(
    config: Mapping[str, Any], given: Mapping[str, Any] | str | None, defaults: Sequence[str], option: str
) -> tuple[str, Mapping[str, Any]]:
    """The dataset that an option names: a dict, the key of one (also as "config:key"), or the first default there is.

    Raises ConfigError if there is none.
    """
    if isinstance(given, Mapping):
        return option, given
    keys = defaults if given is None else (given.removeprefix("config:"),)
    for key in keys:
        candidate = config.get(key, config.get("eval_datasets", {}).get(key))
        if isinstance(candidate, Mapping):
            return key, candidate
    if given is not None:
        raise ConfigError(
            [Diagnostic(None, (option,), f"the config has no dataset '{keys[0]}'", "Give the key of one.")]
        )
    raise ConfigError([Diagnostic(None, (option,), "there is no dataset", f"Set {option}, or {' or '.join(keys)}.")])


class Decoder:
    """Runs the search. One trace, whatever the lengths."""

    def __init__(self, runnable: Runnable, layers: Sequence[str]) -> None:
        self._executable, self._layers = runnable, layers

        def step(data: Tensors, seq_lens: Tensors) -> dict[str, dict[str, tf.Tensor]]:
            found = runnable.run_search(data, seq_lens)
            return {layer: _as_dict(found[layer]) for layer in layers}

        self._step = tf.function(step, input_signature=signature(runnable), autograph=False)

    def decode(self, dataset: Dataset, options: BatchOptions, name: str) -> dict[str, list[Decoded]]:
        """The hypotheses of all sequences by layer. The longest sequences go first, so that a batch that does not fit
        into memory is the first one; the result is in corpus order. Messages call the dataset `name`."""
        check_dataset(dataset, self._executable, name)
        current = dataset.at_epoch(1)
        visited = current.epoch_order(1)
        longest_first = visited[np.argsort(-current.lengths(current.sorting_key)[visited], kind="stable")]
        with about(name):
            pieces = list(plan(current, longest_first, options))
        found: dict[str, dict[int, Decoded]] = {layer: {} for layer in self._layers}
        with progress("search", len(pieces)) as advance:
            for batch, (data, seq_lens) in feeds(self._executable, current, pieces, name):
                with computing(self._executable, batch, name):
                    arrays = {
                        layer: {kind: tensor.numpy() for kind, tensor in parts.items()}
                        for layer, parts in self._step(data, seq_lens).items()
                    }
                for row, (index, tag) in enumerate(zip(batch.seq_indices, batch.tags, strict=True)):
                    for layer, parts in arrays.items():
                        found[layer][index] = _decoded(tag, parts, row)
                advance(f"{len(found[self._layers[0]])} of {len(visited)} sequences")
        return {layer: [by_index[index] for index in sorted(by_index)] for layer, by_index in found.items()}


def _as_dict(hypotheses: DecodedLabels) -> dict[str, tf.Tensor]:
    parts = {"labels": hypotheses.labels, "lengths": hypotheses.lengths}
    return parts if hypotheses.scores is None else {**parts, "scores": hypotheses.scores}


def _decoded(tag: str, parts: Mapping[str, np.ndarray], row: int) -> Decoded:
    labels, lengths = parts["labels"][row], np.atleast_1d(parts["lengths"][row])
    is_beam = labels.ndim == 2
    rows = labels if is_beam else labels[np.newaxis]
    scores = np.atleast_1d(parts["scores"][row]) if "scores" in parts else np.zeros(len(rows))
    best_first = np.argsort(-scores, kind="stable")
    return Decoded(
        tag,
        tuple(tuple(int(label) for label in rows[k][: lengths[k]]) for k in best_first),
        tuple(float(scores[k]) for k in best_first),
        is_beam,
    )


def _label_names(runnable: Runnable, layer: str, dataset: Dataset, target: str) -> Sequence[str]:
    """The names of the labels from the network or else the dataset's target; empty if nobody knows them."""
    classes = runnable.classes(layer)
    if classes is not None and classes.names:
        return classes.names
    spec = dataset.keys.get(target)
    return spec.labels if spec is not None and spec.sparse else ()


def as_text(labels: Sequence[int], names: Sequence[str]) -> str:
    """Labels with spaces between; their numbers if they have no names."""
    return " ".join(label_texts(labels, names))


def label_texts(labels: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """The name of each label."""
    return tuple(names[label] if label < len(names) else str(label) for label in labels)


def write_hypotheses(path: str, form: str, decoded: Mapping[str, Sequence[Decoded]], names: Sequence[str]) -> None:
    """Writes hypotheses: "txt", the best one a line; or "py", a Python dict from tag to text, or from tag to a list of
    (score, text) if there is a beam. With several layers the dict is by layer first.

    Lines take one layer.
    """
    if form == "txt":
        found = next(iter(decoded.values()))
        write_text(path, "".join(f"{as_text(one.labels[0], names)}\n" for one in found))
        return
    literals = {layer: _as_literal(found, names) for layer, found in decoded.items()}
    if len(literals) == 1:
        write_text(path, next(iter(literals.values())) + "\n")
        return
    write_text(path, "{\n" + "".join(f"{layer!r}: {literal},\n" for layer, literal in literals.items()) + "}\n")


def _as_literal(found: Sequence[Decoded], names: Sequence[str]) -> str:
    lines = []
    for one in found:
        texts = [as_text(labels, names) for labels in one.labels]
        content = list(zip(one.scores, texts, strict=True)) if one.is_beam else texts[0]
        lines.append(f"{one.tag!r}: {content!r},\n")
    return "{\n" + "".join(lines) + "}"


def _rates(found: Sequence[Decoded], names: Sequence[str], dataset: Dataset, target: str) -> ErrorRates | None:
    """None if the dataset has no right answers."""
    indices = sorted(int(index) for index in set(dataset.epoch_order(1).tolist()))
    try:
        references = [dataset.references(index, target) for index in indices]
    except DataError:
        return None
    return error_rates((label_texts(one.labels[0], names), right) for one, right in zip(found, references, strict=True))


def _log_examples(found: Sequence[Decoded], names: Sequence[str], dataset: Dataset, target: str) -> None:
    indices = sorted(set(dataset.epoch_order(1).tolist()))
    for one, index in list(zip(found, indices, strict=True))[:EXAMPLES]:
        try:
            right = " | ".join(" ".join(labels) for labels in dataset.references(index, target))
        except DataError:
            right = "unknown"
        _log.info("%s: %s (right: %s)", one.tag, as_text(one.labels[0], names), right)
