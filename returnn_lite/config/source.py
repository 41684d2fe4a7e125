"""YAML and JSON configs, read strictly and with the position of every key and value.

The dialect is YAML 1.2's core, so that what looks like a number is one (`1e-4`) and only true and false are booleans
(`no` is a string). What is often written by mistake is refused with what to write instead: duplicate keys, tags,
Python's None, slices and tuples. Aliases are counted before they are expanded.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from returnn_lite.config.diagnostics import AnyPath, ConfigError, ConfigPath, Diagnostic, Position
from returnn_lite.config.scalars import BOOLS, FLOAT, INT, LONGEST_NUMBER, NULLS, SPECIAL, has_open_brackets, is_tuple

MOST_NODES = 1_000_000
"""Values that a config may have after its aliases are expanded."""
DEEPEST = 200
RESOLVER = yaml.resolver.Resolver()


@dataclass(frozen=True)
class Source:
    """A config file: its data, and for each path the positions of its key and of its value."""

    file: str
    data: dict[str, Any]
    positions: Mapping[ConfigPath, tuple[Position, Position]] = field(default_factory=dict)

    def locate(self, path: AnyPath) -> Position | None:
        """Where a key is; if the path is not in the file, where the nearest one above it is."""
        keys = tuple(path)
        for length in range(len(keys), -1, -1):
            found = self.positions.get(keys[:length])
            if found is not None:
                return found[0]
        return None


def read_yaml(path: str | pathlib.Path) -> Source:
    """Reads a YAML or JSON config. Raises ConfigError that names the file, with every mistake of its notation."""
    file = pathlib.Path(path)
    text = _text(file)
    # JSON may be indented with tabs, YAML may not; a string of JSON holds none.
    return parse_yaml(text.replace("\t", " ") if file.suffix == ".json" else text, str(path))


def parse_yaml(text: str, file: str) -> Source:
    """The config in a text; `file` is what messages call it."""
    reader = _Reader(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_error(error, text, file)]) from None
    except yaml.YAMLError as error:
        raise ConfigError([Diagnostic(Position(file, 1, 1), (), str(error).splitlines()[0])]) from None
    except RecursionError:
        raise ConfigError([Diagnostic(Position(file, 1, 1), (), f"nested deeper than {DEEPEST}")]) from None
    if node is None:
        raise ConfigError([Diagnostic(Position(file, 1, 1), (), "the file is empty", "Write a network.")])
    reader.count(node)
    data = reader.value(node, ()) if not reader.diagnostics else None
    if reader.diagnostics:
        raise ConfigError(reader.diagnostics)
    if not isinstance(data, dict):
        raise ConfigError([Diagnostic(Position(file, 1, 1), (), "expected keys and values, such as 'task: train'")])
    return Source(file, data, reader.positions)


def parse_scalar(text: str) -> Any:
    """A value of the command line: a scalar, or a list or dict in YAML's flow notation. Raises ConfigError."""
    data = parse_yaml(f"value: {text}", "command line").data
    if len(data) > 1:
        raise ConfigError([Diagnostic(Position("command line", 1, 1), (), "a value is one line", "Quote text.")])
    return data["value"]


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError([Diagnostic(None, (), f"there is no file '{path}'")]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([_not_utf8(error, str(path))]) from None
    except OSError as error:
        raise ConfigError([Diagnostic(None, (), f"'{path}' can't be read: {error.strerror}")]) from None


def _not_utf8(error: UnicodeDecodeError, file: str) -> Diagnostic:
    before = bytes(error.object)[: error.start]
    line_start = before.rfind(b"\n") + 1
    column = len(before[line_start:].decode("utf-8", "replace")) + 1
    position = Position(file, before.count(b"\n") + 1, column)
    return Diagnostic(position, (), f"byte {error.start} is not UTF-8", "Save the file as UTF-8.")


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> Diagnostic:
    """What is wrong, where it begins: what is never closed is found out only at the end of the file."""
    problem = f"{error.problem}"
    closing = re.match(r"expected ',' or '(.)'", problem)
    mark = error.problem_mark or error.context_mark
    if closing is not None and problem.endswith("got '?'"):
        problem, hint = "'?' can't be in a value between brackets", "Quote the value, as in 'T?'."
    elif closing is not None and error.context_mark is not None:
        mark, problem, hint = error.context_mark, "this bracket is not closed", f"Add '{closing[1]}', or a comma."
    elif problem == "found unexpected end of stream" and error.context_mark is not None:
        mark, problem, hint = error.context_mark, "this quote is not closed", "Is a quote missing?"
    elif problem == "could not find expected ':'" and error.context_mark is not None:
        mark, problem, hint = error.context_mark, "this is no key with a value", "Is a ':' missing?"
    elif problem == "but found another document":
        problem, hint = "a second document begins here", "A config is one document: remove the '---'."
    elif problem == "second occurrence":
        problem, hint = "there is an anchor of this name already", "Give it another name."
    elif problem == "expected <block end>, but found '<block mapping start>'":
        problem, hint = "this line is indented unlike those above", "Indent the keys of one dict alike."
    else:
        hint = _syntax_hint(text, mark.line + 1 if mark is not None else 1, problem)
    position = Position(file, mark.line + 1, mark.column + 1) if mark is not None else Position(file, 1, 1)
    return Diagnostic(position, (), problem, hint)


def _syntax_hint(text: str, line: int, problem: str) -> str:
    lines = text.splitlines()
    content = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in content:
        return "Indent with spaces, not with tabs."
    if re.search(r",\s*:", content):
        return "Quote text that begins with ':'."
    if re.search(r"\[\s*:", content):
        return "Write a slice with slice_start and slice_end, and quote text that begins with ':'."
    if content.count("'") % 2 or content.count('"') % 2:
        return "Is a quote missing?"
    if problem.startswith("mapping values are not allowed"):
        return "Quote text that has ': ' in it, and indent the keys of one dict alike."
    return "Quote text that has one of : { } [ ] , & * # ! in it."


class _Reader:
    """Turns YAML nodes into data, noting positions."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[ConfigPath, tuple[Position, Position]] = {}
        self.diagnostics: list[Diagnostic] = []
        self.flow = False

    def count(self, root: yaml.Node) -> None:
        """Refuses what would expand to too much: aliases of aliases, or of what is around them."""
        sizes: dict[int, int] = {}
        open_nodes: set[int] = set()

        def size(node: yaml.Node, depth: int) -> int:
            if id(node) in sizes:
                return sizes[id(node)]
            if id(node) in open_nodes or depth > DEEPEST:
                what = "an alias of what it is in" if id(node) in open_nodes else f"nested deeper than {DEEPEST}"
                if not self.diagnostics:
                    self._report(node, (), what, "")
                return MOST_NODES + 1
            open_nodes.add(id(node))
            total = 1 + sum(size(child, depth + 1) for child in _children(node))
            open_nodes.discard(id(node))
            sizes[id(node)] = total
            return total

        if size(root, 0) > MOST_NODES and not self.diagnostics:
            self._report(root, (), f"more than {MOST_NODES} values after its aliases are expanded", "Write it shorter.")

    def value(self, node: yaml.Node, path: ConfigPath, key: yaml.Node | None = None) -> Any:
        """The data of a node."""
        here = self._position(node)
        self.positions[path] = (self._position(key) if key is not None else here, here)
        if node.tag != _tag_without_saying(node):
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self._report(node, path, f"the tag {tag} is not allowed", "A config is data; leave the tag out.")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        assert isinstance(node, yaml.CollectionNode)
        outside, self.flow = self.flow, self.flow or bool(node.flow_style)
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self.flow = outside
        return value

    def _sequence(self, node: yaml.Node, path: ConfigPath) -> list[Any]:
        return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: ConfigPath) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in result:
                first = self.positions[(*path, key)][0]
                hint = f"The first is in line {first.line}; remove one."
                self._report(key_node, (*path, key), f"the key '{key}' is there twice", hint)
                continue
            if value_node.start_mark.index == key_node.end_mark.index:
                self._report_no_value(key_node, str(key), path)
                continue
            result[key] = self.value(value_node, (*path, key), key_node)
        return result

    def _report_no_value(self, node: yaml.Node, key: str, path: ConfigPath) -> None:
        """`{x:1}` has one key, `x:1`. What follows the comma of a tuple is reported where the tuple begins."""
        if self.diagnostics and key.count("(") != key.count(")"):
            return
        hint = f"Write '{': '.join(key.split(':', 1))}'." if ":" in key else f"Write '{key}: ...'."
        self._report(node, path, f"'{key}' has no ': ' and no value", hint)

    def _key(self, node: yaml.Node, path: ConfigPath) -> str | int | None:
        if not isinstance(node, yaml.ScalarNode):
            self._report(node, path, "a key must be text or a number", "Quote it if it is text.")
            return None
        if node.value == "<<" and node.style is None:
            self._report(
                node, path, "merge keys ('<<') are not part of the dialect", "Use 'extends', or write the keys out."
            )
            return None
        value = self._scalar(node, path)
        if isinstance(value, bool | float) or value is None:
            self._report(node, path, f"{node.value} is no name for a key", f'Write "{node.value}" in quotes.')
            return None
        return value if isinstance(value, str | int) else str(value)

    def _scalar(self, node: yaml.ScalarNode, path: ConfigPath) -> Any:
        text = str(node.value)
        if node.style is not None:
            return text
        if text in BOOLS:
            return BOOLS[text]
        if text in NULLS:
            return None
        if text in SPECIAL:
            return SPECIAL[text]
        if INT.fullmatch(text) or FLOAT.fullmatch(text):
            return self._number(node, text, path)
        self._check_text(node, text, path)
        return text

    def _number(self, node: yaml.Node, text: str, path: ConfigPath) -> int | float:
        digits = text.replace("_", "")
        if not INT.fullmatch(text):
            value = float(digits)
            if math.isinf(value):
                self._report(node, path, f"{text} is too large", "Write .inf if that is meant.")
            return value
        if len(digits) > LONGEST_NUMBER:
            self._report(node, path, f"an int of {len(digits)} digits is too large", "Quote it if it is text.")
            return 0
        return int(digits, 0) if digits[:2] in ("0x", "0o") else int(digits)

    def _check_text(self, node: yaml.ScalarNode, text: str, path: ConfigPath) -> None:
        if text == "None":
            self._report(node, path, "None is Python's", "Write null.")
        elif is_tuple(text):
            self._report(node, path, f"{text} is Python's notation of a tuple", f"Write [{text[1:-1].strip(' ,')}].")
        elif self.flow and has_open_brackets(text):
            hint = "Write a tuple as [2, 2]; quote an expression that has a comma."
            self._report(node, path, f"'{text}' ends at a comma although a bracket is open", hint)

    def _position(self, node: yaml.Node) -> Position:
        return Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _report(self, node: yaml.Node, path: ConfigPath, message: str, hint: str) -> None:
        self.diagnostics.append(Diagnostic(self._position(node), path, message, hint))


def _tag_without_saying(node: yaml.Node) -> str:
    """The tag that PyYAML gives a node for which the text says none."""
    is_scalar = isinstance(node, yaml.ScalarNode)
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    value = node.value if is_scalar else None
    return str(RESOLVER.resolve(type(node), value, (is_plain, not is_plain)))  # type: ignore[no-untyped-call]


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
