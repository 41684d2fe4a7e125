"""`rnn.py params`: lists, exports, imports and converts parameters."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from returnn_lite.cli.loading import UsageError
from returnn_lite.cli.parameter_files import note, read_parameters, require_archive, require_new, write_parameters
from returnn_lite.cli.params_arguments import params_parser
from returnn_lite.cli.tasks import RunError
from returnn_lite.config.diagnostics import nearest_hint
from returnn_lite.explain.columns import columns
from returnn_lite.weights import WeightsError
from returnn_lite.weights.forms import CUDNN, FORMS, Form, Sizes
from returnn_lite.weights.gates import KINDS
from returnn_lite.weights.recurrent_layers import RecurrentLayer, layer_path, recurrent_layers
from returnn_lite.weights.replacement import replaced_parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from returnn_lite.engine.parameter_set import ParameterSet

    Arrays = Mapping[str, NDArray[Any]]
NO_CELL = "no LSTM, GRU or multiplicative LSTM"


def params(text: str, options: Sequence[str], overrides: Sequence[str]) -> int:
    """Runs an action; 0 if it is done. Raises UsageError, ConfigError and RunError."""
    parsed = params_parser(text, FORMS, tuple(KINDS)).parse_args(options)
    actions = {"list": _list, "export": _export, "import": _import}
    with _told():
        if parsed.action != "convert":
            return actions[parsed.action](parsed, overrides)
        if overrides:
            raise UsageError(f"'{overrides[0]}' overrides a config, and there is none")
        return _convert(parsed)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with files and weights ends the command with a line."""
    from returnn_lite.engine.errors import EngineError

    try:
        yield
    except (EngineError, WeightsError, OSError) as error:
        raise RunError(str(error)) from error


def _list(parsed: argparse.Namespace, overrides: Sequence[str]) -> int:
    found = read_parameters(parsed.source, overrides)
    arrays = _below(found, parsed.layer)
    rows = [
        (name, " x ".join(map(str, array.shape)), str(array.dtype), str(array.size)) for name, array in arrays.items()
    ]
    print(columns(("parameter", "dims", "dtype", "numbers"), rows))
    print(f"{len(arrays)} parameters, {sum(array.size for array in arrays.values())} numbers, of {found.origin}")
    for layer in recurrent_layers(_shapes(found), parsed.layer):
        if layer.problem is None:
            print(f"recurrent layer '{layer.path}': {layer}")
    return 0


def _export(parsed: argparse.Namespace, overrides: Sequence[str]) -> int:
    require_archive(parsed.out)
    form = _other_form(parsed)
    require_new(parsed.out)
    found = read_parameters(parsed.source, overrides)
    arrays = dict(_below(found, parsed.layer))
    if form is not None and parsed.layer is not None:
        arrays = _as_other(_only_layer(found, parsed.layer), found, form)
    elif form is not None:
        for layer in _convertible_layers(found):
            for name in layer.names(_shapes(found)):
                del arrays[name]
            arrays |= {f"{layer.path}/{name}": array for name, array in _as_other(layer, found, form).items()}
    return write_parameters(parsed.out, arrays, f"of {found.origin}")


def _as_other(layer: RecurrentLayer, found: ParameterSet, form: Form) -> dict[str, Any]:
    """A layer's parameters as another system has them. Raises WeightsError."""
    try:
        stack = layer.stack(found.arrays, found.forget_biases)
        converted = form.write(stack)
    except WeightsError as error:
        raise WeightsError(f"'{layer.path}' in the layout '{form.system}': {error}") from error
    _tell_sums(form.sums(stack), f"'{layer.path}': ")
    return converted


def _import(parsed: argparse.Namespace, overrides: Sequence[str]) -> int:
    form = _other_form(parsed)
    require_new(parsed.out)
    given = read_parameters(require_archive(parsed.archive), ())
    base = read_parameters(parsed.source, overrides)
    wanted, arrays = _below(base, parsed.layer), dict(given.arrays)
    if form is not None and parsed.layer is not None:
        layer = _only_layer(base, parsed.layer)
        wanted = {name: base.arrays[name] for name in layer.names(_shapes(base))}
        arrays = _as_ours(layer, base, arrays, form)
    elif form is not None:
        for layer in _convertible_layers(base):
            begin = f"{layer.path}/"
            own = {name: arrays.pop(name) for name in list(arrays) if name.startswith(begin)}
            own = {name.removeprefix(begin): array for name, array in own.items()}
            arrays |= _as_ours(layer, base, own, form)
    fitting, notes = replaced_parameters(arrays, wanted, parsed.archive, base.origin)
    for one in notes:
        note(one)
    what = f"{len(fitting)} of {given.origin}"
    if len(fitting) < len(base.arrays):
        what += f", {len(base.arrays) - len(fitting)} of {base.origin}"
    return write_parameters(parsed.out, {**base.arrays, **fitting}, what)


def _as_ours(layer: RecurrentLayer, base: ParameterSet, arrays: Arrays, form: Form) -> dict[str, Any]:
    """What another system has of a layer as the network's parameters. Raises WeightsError."""
    try:
        stack = dataclasses.replace(form, sizes=layer.sizes(base.arrays)).read(arrays, layer.kind)
        written = layer.written(stack, base.forget_biases)
    except WeightsError as error:
        raise WeightsError(f"'{layer.path}' from the layout '{form.system}': {error}") from error
    _tell_sums(layer.sums(stack, base.forget_biases), f"'{layer.path}': ")
    return written


def _convert(parsed: argparse.Namespace) -> int:
    require_archive(parsed.out)
    given = _sizes(parsed)
    source = dataclasses.replace(_form(parsed.source_layout, parsed.from_forget_bias), sizes=given)
    target = _form(parsed.layout, parsed.to_forget_bias)
    require_new(parsed.out)
    arrays = read_parameters(require_archive(parsed.archive), ()).arrays
    if parsed.layer is not None:
        begins = (f"{parsed.layer}/", f"{parsed.layer}.")
        arrays = {name[len(begins[0]) :]: array for name, array in arrays.items() if name.startswith(begins)}
        if not arrays:
            raise UsageError(f"'{parsed.archive}' has nothing whose name begins with '{begins[0]}' or '{begins[1]}'")
    stack = source.read(arrays, parsed.cell)
    _tell_sums(target.sums(stack))
    return write_parameters(parsed.out, target.write(stack), f"of '{parsed.archive}'")


def _sizes(parsed: argparse.Namespace) -> Sizes | None:
    """What a vector of cuDNN leaves open. Raises UsageError if it is missing, or given for another layout."""
    given = {name: getattr(parsed, name) for name in ("units", "layers", "directions", "projection")}
    given = {name: value for name, value in given.items() if value is not None}
    if parsed.source_layout != CUDNN:
        if given:
            raise UsageError(f"--{next(iter(given))} is for --from cudnn: other layouts have shapes")
        return None
    if parsed.cell is None or "units" not in given:
        raise UsageError("--from cudnn needs --cell and --units: a vector has no shapes")
    if min(given.values()) < 1:
        raise UsageError("sizes are 1 or more")
    return Sizes(**given)


def _other_form(parsed: argparse.Namespace) -> Form | None:
    """That of the option `--layout`; None without it."""
    if parsed.layout is not None:
        return _form(parsed.layout, parsed.forget_bias)
    if parsed.forget_bias is not None:
        raise UsageError("--forget-bias is about another system: it needs --layout")
    return None


def _form(system: str, forget_bias: float | None) -> Form:
    try:
        return Form(system, forget_bias)
    except WeightsError as error:
        raise UsageError(f"--forget-bias: {error}") from error


def _below(found: ParameterSet, layer: str | None) -> Arrays:
    """The parameters of a layer: those whose names begin with it, with or without the `rec` of the loops around it.
    Raises UsageError if there are none."""
    if layer is None:
        return found.arrays
    begin = f"{layer}/"
    arrays = {n: a for n, a in found.arrays.items() if n.startswith(begin) or n.replace("/rec/", "/").startswith(begin)}
    if not arrays:
        known = [path for path in dict.fromkeys(map(layer_path, found.arrays)) if path]
        there = ", ".join(known[:10]) + (", .." if len(known) > 10 else "")
        raise UsageError(
            f"there is no layer '{layer}'.{nearest_hint(layer, known)} {found.origin} has those of {there}"
        )
    return arrays


def _only_layer(found: ParameterSet, path: str) -> RecurrentLayer:
    """The recurrent layer that `--layer` names. Raises UsageError and WeightsError."""
    _below(found, path)
    layers = recurrent_layers(_shapes(found), path)
    if len(layers) != 1:
        named = ", ".join(f"'{layer.path}'" for layer in layers)
        what = f"has several recurrent layers, {named}: name one" if layers else f"is {NO_CELL}"
        raise UsageError(f"--layout: '{path}' {what}")
    layers[0].require_convertible()
    return layers[0]


def _convertible_layers(found: ParameterSet) -> list[RecurrentLayer]:
    """The recurrent layers that other systems can have; it is told which they can't. Raises UsageError if there are
    none."""
    layers = recurrent_layers(_shapes(found))
    for layer in layers:
        if layer.problem is not None:
            note(f"'{layer.path}' keeps its own names: {layer.problem}")
    convertible = [layer for layer in layers if layer.problem is None]
    if not convertible:
        raise UsageError(f"--layout: {found.origin} has {NO_CELL}")
    return convertible


def _tell_sums(added: Sequence[str], where: str = "") -> None:
    for one in added:
        note(f"{where}{one}: that is rounded, and the way back does not give the same bits")


def _shapes(found: ParameterSet) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in found.arrays.items()}
