"""`rnn.py [VERB] CONFIG [key=value | ++key value ...]`: parses the command line and runs the verb.

Without a verb the config's `task` is run, as RETURNN does. Exit codes: 0 done, 1 the run failed, 2 the config or the
command line is wrong.
"""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from collections.abc import Iterator, Sequence

from returnn_lite.cli import checking, tasks
from returnn_lite.cli.loading import LoadedConfig, UsageError, load
from returnn_lite.config.diagnostics import ConfigError, Diagnostic, nearest_hint
from returnn_lite.garbage import all_is_old
from returnn_lite.ir.batches import BatchError
from returnn_lite.ir.host_calls import FunctionError

VERBS = {
    "train": "train the network",
    "eval": "compute losses and errors on data sets",
    "search": "decode with beam search",
    "forward": "write a layer's output to a file",
    "check": "validate and type the whole network, in every mode; exit 2 if it can't be trained, or searched",
    "explain": "say what runs where, and why",
    "verify": "compare the network with and without optimisation on random data",
    "graph": "draw the network as compiled, as an SVG file",
    "summary": "list layers, shapes and parameters",
    "params": "list, export, import and convert parameters, in other systems' layouts too",
    "schema": "print the JSON schema of configs",
    "show-config": "print the effective config after composition and overrides",
}
TASKS = ("train", "eval", "search", "forward")
REDUCTION_SECONDS = 300
"""How long `verify` looks for a smaller network unless told."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command; the exit code."""
    if argv is None:
        all_is_old()  # what imports made stays to the end of the process
        gc.set_threshold(
            50_000
        )  # no need to look often at what TensorFlow makes of a graph: it makes little that is garbage
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("rnn.py: interrupted; what is done is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - no user shall see a traceback unless they ask for it
        for line in _lines(error):
            print(line, file=sys.stderr)
        if debug:
            traceback.print_exc()
        return 2 if isinstance(error, ConfigError | UsageError) else 1


def _lines(error: Exception) -> Iterator[str]:
    """What a user reads of an error: a line for each mistake, no traceback."""
    if isinstance(error, ConfigError):
        yield from map(str, error.diagnostics)
    elif isinstance(error, UsageError | tasks.RunError | BatchError | FunctionError):
        yield f"rnn.py: {error}"
    else:
        first = next(iter(str(error).splitlines()), "") or "no message"
        yield (
            f"rnn.py: {type(error).__name__}: {first} (this is a mistake of returnn_lite or of what it uses; "
            "please report it with what the same command prints with --debug)"
        )


def run(arguments: list[str]) -> int:
    """Runs a command line. Raises ConfigError and UsageError."""
    if not arguments or arguments[0] in ("-h", "--help"):
        parser().print_help()
        return 0
    if arguments[0] == "--version":
        print(tasks.version())
        return 0
    verb = arguments.pop(0) if arguments[0] in VERBS else None
    options, overrides = _split(arguments)
    if verb == "schema":
        schema_parser().parse_args(options + overrides)
        from returnn_lite.cli.inspection import print_schema

        return print_schema()
    if verb == "params":
        from returnn_lite.cli.params import params

        return params(VERBS[verb], options, overrides)
    _require_verb(verb, options)
    parsed = parser(verb).parse_args(options)
    try:
        loaded = load(parsed.config, overrides)
    except ConfigError as error:
        if verb == "check" and parsed.json:
            checking.print_json(error.diagnostics)
            return 2
        raise
    try:
        return _dispatch(verb or _task(loaded), loaded, parsed)
    except ConfigError as error:
        raise ConfigError(loaded.placed(error)) from error


def _require_verb(verb: str | None, options: Sequence[str]) -> None:
    """Raises UsageError for two words without a verb: the first is no config then but a verb with a typo."""
    names = [option for option in options if not option.startswith("-")]
    if verb is None and len(names) > 1:
        hint = nearest_hint(names[0], list(VERBS)) or f" The verbs are {', '.join(VERBS)}."
        raise UsageError(f"there is no verb '{names[0]}'.{hint}")


def _task(loaded: LoadedConfig) -> str:
    task = loaded.data.get("task", "train")
    if task in TASKS:
        return str(task)
    path = ("task",)
    hint = f"The tasks are {', '.join(TASKS)}."
    raise ConfigError([Diagnostic(loaded.locate(path), path, f"there is no task {task!r}", hint)])


def _dispatch(verb: str, loaded: LoadedConfig, parsed: argparse.Namespace) -> int:
    if verb in TASKS:
        checking.require_keys(loaded)
        return tasks.run_task(verb, loaded)
    if verb == "check":
        return checking.check(loaded, parsed.json, parsed.timing)
    if verb == "verify":
        with tasks.quiet_import():
            import returnn_lite.engine.network  # noqa: F401 - brings TensorFlow in
        from returnn_lite.cli.verification import verify

        return verify(loaded, parsed.batch, parsed.all, parsed.reduce)
    from returnn_lite.cli import inspection  # not at the top: `check` would wait for it

    if verb == "explain":
        if parsed.json and parsed.html:
            raise UsageError("--html writes a page and --json prints: give one of them")
        if parsed.kernels:
            return inspection.explain_kernels(loaded, parsed.mode, parsed.json)
        return inspection.explain(loaded, parsed.mode, parsed.passes, parsed.json, parsed.html)
    if verb == "graph":
        return inspection.draw_graph(loaded, parsed.mode, parsed.file)
    if verb == "summary":
        return _summary(loaded, parsed)
    return inspection.show_config(loaded)


def _summary(loaded: LoadedConfig, parsed: argparse.Namespace) -> int:
    from returnn_lite.cli import inspection, memory

    if not parsed.memory:
        if parsed.json or parsed.batch is not None or parsed.lengths is not None:
            raise UsageError("--json, --batch and --lengths are about what --memory prints")
        return inspection.summary(loaded, parsed.mode)
    if parsed.mode != "train":
        raise UsageError(f"--memory is about the backward pass: there is none in {parsed.mode}")
    if parsed.batch is not None and parsed.batch < 1:
        raise UsageError(f"--batch is a number of sequences, not {parsed.batch}")
    lengths = memory.lengths_in(parsed.lengths) if parsed.lengths is not None else {}
    return memory.memory(loaded, memory.BatchRequest(parsed.batch, lengths), parsed.json)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The options of the verb with the config's name, and the overrides."""
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("++") and "=" not in argument:
            value = next(rest, None)
            if value is None:
                raise UsageError(f"'{argument}' needs a value after it")
            overrides += [argument, value]
        elif argument == "--lengths":
            options += [argument, *([value] if (value := next(rest, None)) is not None else [])]
        elif not argument.startswith("-") and "=" in argument:
            overrides.append(argument)
        else:
            options.append(argument)
    return options, overrides


def schema_parser() -> argparse.ArgumentParser:
    """The parser of `schema`, which takes no config: there is one schema for all."""
    made = argparse.ArgumentParser(prog="rnn.py schema", description=VERBS["schema"])
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser of one verb's options; without a verb that of the command's own help."""
    listed = "\n".join(f"  {name:<12} {text}" for name, text in VERBS.items())
    made = argparse.ArgumentParser(
        prog=f"rnn.py {verb}" if verb else "rnn.py",
        usage=None if verb else "rnn.py [VERB] CONFIG [key=value | ++key value ...]",
        description=VERBS.get(verb or "", f"Verbs (without one, the config's task is run):\n{listed}"),
        epilog="Overrides: a.b=value replaces what the config has, +a.b=value and ++a.b value may add to it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("config", help="a YAML or JSON config, or a Python config (.py, .config), which is run as code")
    if verb == "graph":
        made.add_argument("file", metavar="FILE.svg", help="where to write the picture")
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # A group without arguments would make argparse fail at printing the usage.
    form = made.add_mutually_exclusive_group() if verb == "explain" else made
    if verb in ("check", "explain", "summary"):
        made.add_argument("--json", action="store_true", help="print JSON")
    if verb == "check":
        made.add_argument("--timing", action="store_true", help="print what building and each pass took and made")
    if verb in ("explain", "graph", "summary"):
        made.add_argument("--mode", choices=TASKS, default="train", help="which compilation (default: train)")
    if verb == "explain":
        form.add_argument("--passes", action="store_true", help="print the IR after each pass that changes it")
        form.add_argument(
            "--kernels",
            action="store_true",
            help="print what runs each recurrence, and what keeps it from a faster one",
        )
        form.add_argument(
            "--html", metavar="FILE", help="write a page that draws the network before and after the passes"
        )
    if verb == "summary":
        made.add_argument(
            "--memory", action="store_true", help="what a train step keeps for its backward pass, by layer"
        )
        sequences = "of --memory: sequences of the batch (default: as many as batch_size and max_seqs let)"
        made.add_argument("--batch", metavar="N", type=int, help=sequences)
        longest = (
            "of --memory: the longest sequences, by data key or dim: data=100,classes=30 (default: max_seq_length)"
        )
        made.add_argument("--lengths", metavar="NAME=FRAMES,...", help=longest)
    if verb == "verify":
        made.add_argument("--batch", type=int, default=3, help="sequences in the random batch")
        made.add_argument("--all", action="store_true", help="print every layer, also those that are equal")
        reduce = "how long to search for the smallest network that differs, if any does (default: %(default)s; 0: not)"
        made.add_argument("--reduce", metavar="SECONDS", type=float, default=REDUCTION_SECONDS, help=reduce)
    return made
