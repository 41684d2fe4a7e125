"""The shape of the house: who may import whom, where TensorFlow lives, and how long a file or a function may get."""

import ast
import configparser
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from returnn_lite.ir.reachability import reachable
from returnn_lite.layers.surroundings import Surroundings

TOP = Path(__file__).resolve().parent.parent
PACKAGE = "returnn_lite"

# A module imports from lower lines only; on its own line only from its own package.
LINE = {
    "dims": 0,
    "config": 0,
    "lazy_numpy": 0,
    "garbage": 0,
    "ir": 1,
    "weights": 1,
    "keras_cells": 2,
    "passes": 2,
    "memory": 3,
    "layers": 3,
    "tf": 4,
    "data": 4,
    "net": 4,
}
LINE |= {
    "explain": 5,
    "compiled": 5,
    "compiler": 6,
    "engine": 7,
    "cells": 7,
    "verification": 7,
    "cli": 8,
    "nn": 8,
    "__init__": 9,
}
LINE["__main__"] = 9
ONLY = {"tf": {"tf", "ir", "dims", "weights"}}  # narrower than its line: the backend knows primitives, not passes
# Inside the backend: layouts and sizes below, then arithmetic, then the lowering of each primitive, then of a graph.
BACKEND = {"tf/*": 0, "tf/kernels/*": 1, "tf/ops/*": 2, "tf/lowering.py": 3, "tf/outputs.py": 3, "tf/executable.py": 3}
TENSORFLOW = {"tf", "engine", "cells", "keras_cells"}
BUILT_ON_IT = {"engine", "cells"}  # import the backend; nothing else imports these at module level
# Imports inside functions keep TensorFlow away from `check` and `explain`, and from `check` what other verbs need;
# these may, of these packages only.
LATE = {
    "layers": {"keras_cells"},
    "compiled": {"tf"},
    "compiler": {"tf"},
    "cli": {"engine", "data", "compiler", "tf", "cli"},
}
VAGUE = {"util", "utils", "helper", "helpers", "misc", "basic", "common_stuff"}
MAX_FILE, MAX_FUNCTION = 500, 60
SHORTER = {"passes": 200}  # the most lines of a file where it is less
# Passes that are about certain primitives, and which; what others must know of a primitive stands on it.
PASSES_ABOUT = {
    "decide_first.py": {"Decide"},
    "kernels/candidates.py": {"Constant", "Dot", "Elementwise", "Gather", "Last"},
    "kernels/choice.py": {"Recurrence"},
    "kernels/groups.py": {"Concat", "Relabel"},
    "index_checks.py": {"Constant"},
    "join_dots.py": {"Dot"},
    "split_dots.py": {"Concat", "Dot"},
}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def imported(node: ast.AST, module: Path) -> list[str]:
    """Full dotted names that an import statement in ``module`` (a path below the package) asks for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = [node.module] if node.module else []
    if node.level:
        here = [PACKAGE, *module.parent.parts]
        base = here[: len(here) - node.level + 1] + base
    name = ".".join(base)
    return [f"{name}.{alias.name}" for alias in node.names] if name == PACKAGE else [name]


def part_of(name: str) -> str | None:
    """The package or top module of ours that a dotted name belongs to; None for a foreign one."""
    head, _, rest = name.partition(".")
    if head != PACKAGE:
        return None
    part = rest.partition(".")[0]
    return part if part in LINE else "__init__"


def floor(module: Path) -> int | None:
    """The line inside the backend of a module (a path below the package); None for one of another package."""
    return max((line for pattern, line in BACKEND.items() if module.match(pattern)), default=None)


def inside(tree: ast.AST, kind: type | tuple[type, ...]) -> Iterator[tuple[ast.AST, bool]]:
    """Every node with whether it stands below a node of ``kind``."""
    pending = [(tree, False)]
    while pending:
        node, below = pending.pop()
        yield node, below
        pending += [(child, below or isinstance(node, kind)) for child in ast.iter_child_nodes(node)]


def import_faults(tree: ast.AST, module: Path, part: str) -> Iterator[str]:
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node, late in inside(tree, FUNCTION):
        for name in imported(node, module):
            other = part_of(name)
            if late and other not in LATE.get(part, ()):
                yield f"line {node.lineno}: import of {name} inside a function"
            if name.partition(".")[0] in {"tensorflow", "keras"} and part not in TENSORFLOW:
                yield f"line {node.lineno}: {name} outside {sorted(TENSORFLOW)}"
            if part == other == "tf" and floor(Path(*name.split(".")[1:]).with_suffix(".py")) > floor(module):
                yield f"line {node.lineno}: {module} may not import {name}"
            if other is None or other == part:
                continue
            if LINE[other] >= LINE[part] or other not in ONLY.get(part, LINE):
                yield f"line {node.lineno}: {part} may not import {other}"
            if other in TENSORFLOW - {part} and part not in BUILT_ON_IT and not late and node not in for_types:
                yield f"line {node.lineno}: {name} at module level imports TensorFlow for every command"


def faults(source: str, module: Path) -> list[str]:
    """What is wrong with one module, given by its text and its path below the package."""
    tree = ast.parse(source)
    part = module.parts[0].removesuffix(".py")
    if part not in LINE:
        return [f"{part} has no line in the table"]
    found = list(import_faults(tree, module, part))
    if module.stem in VAGUE or (VAGUE & set(module.parts)):
        found.append(f"{module.stem} says nothing about its content")
    if (lines := source.count("\n")) > SHORTER.get(part, MAX_FILE):
        found.append(f"{lines} lines")
    for node in ast.walk(tree):
        if isinstance(node, FUNCTION) and (length := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:
            found.append(f"line {node.lineno}: {node.name} has {length} lines")
        if isinstance(node, ast.Global):
            found.append(f"line {node.lineno}: global")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
    return found


def primitives_asked_for(source: str) -> set[str]:
    """The primitives whose class a module asks a node for."""
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    of_ops = [node for node in imports if (node.module or "").startswith(f"{PACKAGE}.ir.ops.")]
    known = {alias.name for node in of_ops for alias in node.names}
    calls = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and ast.unparse(x.func) == "isinstance"]
    return {name.id for call in calls for name in ast.walk(call.args[1]) if isinstance(name, ast.Name)} & known


def circles(imports: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The sets of modules that import each other, given what each imports."""
    reached = {module: set(reachable([module], lambda one: imports.get(one, ()))) for module in imports}
    found = {tuple(sorted(two for two in reached[one] if one in reached[two])) for one in imports}
    return sorted(list(circle) for circle in found if len(circle) > 1)


def imports_inside(package: str) -> dict[str, set[str]]:
    """What each module of a package imports of the same package, for types and inside functions too."""
    here = {path.stem: path for path in (TOP / PACKAGE / package).glob("*.py")}
    found = {}
    for name, path in here.items():
        nodes = ast.walk(ast.parse(path.read_text()))
        names = [one for node in nodes for one in imported(node, Path(package) / path.name)]
        prefix = f"{PACKAGE}.{package}."
        inner = {one.removeprefix(prefix).partition(".")[0] for one in names if one.startswith(prefix)}
        found[name] = (inner & here.keys()) - {name}
    return found


def test_no_modules_of_a_package_import_each_other() -> None:
    """Imports for types, and inside functions, count."""
    packages = sorted(path.name for path in (TOP / PACKAGE).iterdir() if (path / "__init__.py").exists())
    found = [f"{package}: {' '.join(one)}" for package in packages for one in circles(imports_inside(package))]
    assert found == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": ()}) == []


MODULES = sorted(path.relative_to(TOP / PACKAGE) for path in (TOP / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_keeps_the_rules(module: Path) -> None:
    assert faults((TOP / PACKAGE / module).read_text(), module) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("ir/graph.py", "from returnn_lite.layers.affine import Linear\n", "ir may not import layers"),
        ("ir/graph.py", "from ..passes import pipeline\n", "ir may not import passes"),
        ("dims/dim.py", "import returnn_lite.config.source\n", "dims may not import config"),
        ("tf/lowering.py", "from returnn_lite import net\n", "tf may not import net"),
        ("tf/lowering.py", "from returnn_lite.passes.simplify import simplify\n", "tf may not import passes"),
        ("net/network.py", "from returnn_lite.explain.placement import placement\n", "net may not import explain"),
        ("explain/page.py", "from returnn_lite.cli.main import main\n", "explain may not import cli"),
        ("tf/mask.py", "from returnn_lite.tf.kernels.cells import lstm_step\n", "may not import returnn_lite.tf"),
        ("tf/kernels/cells.py", "from returnn_lite.tf.ops.axes import pad\n", "may not import returnn_lite.tf.ops"),
        ("layers/affine.py", "import returnn_lite\n", "layers may not import __init__"),
        ("net/network.py", "import tensorflow as tf\n", "tensorflow outside"),
        ("net/network.py", "from keras.optimizers import Adam\n", "keras.optimizers outside"),
        ("cli/main.py", "from returnn_lite.engine import training\n", "at module level imports TensorFlow"),
        ("net/network.py", "def f():\n    import json\n", "import of json inside a function"),
        ("cli/main.py", "def f():\n    import json\n", "import of json inside a function"),
        ("ir/utils.py", "", "says nothing"),
        ("ir/helpers/text.py", "", "says nothing"),
        ("ir/graph.py", "x = 1\n" * (MAX_FILE + 1), "501 lines"),
        ("passes/loops/partition.py", "x = 1\n" * 201, "201 lines"),
        ("ir/graph.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION, "f has 61 lines"),
        ("ir/graph.py", "def f():\n    global x\n", "global"),
        ("ir/graph.py", "try:\n    pass\nexcept:\n    pass\n", "bare except"),
        ("somewhere/graph.py", "", "no line in the table"),
    ],
)
def test_a_fault_is_found(module: str, source: str, fault: str) -> None:
    assert any(fault in found for found in faults(source, Path(module)))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ir/graph.py", "from returnn_lite.dims.dim import Dim\nfrom .op import Op\nimport numpy\n"),
        ("compiler.py", "def compile():\n    from returnn_lite.tf.lowering import lower\n"),
        ("cli/tasks.py", "def train():\n    from returnn_lite.engine.training import train\n"),
        ("compiler.py", "if TYPE_CHECKING:\n    from returnn_lite.tf.lowering import Program\n"),
        ("engine/training.py", "import tensorflow as tf\nfrom returnn_lite.tf.lowering import lower\n"),
    ],
)
def test_what_is_allowed_is_not_a_fault(module: str, source: str) -> None:
    assert faults(source, Path(module)) == []


def test_passes_know_primitives_by_what_these_say() -> None:
    """So that one more primitive needs no pass; `rules` are about primitives."""
    top = TOP / PACKAGE / "passes"
    modules = [path for path in top.rglob("*.py") if path.parent.name != "rules"]
    found = {str(path.relative_to(top)): primitives_asked_for(path.read_text()) for path in modules}
    assert {module: names for module, names in found.items() if names - PASSES_ABOUT.get(module, set())} == {}


def test_a_primitive_that_a_pass_asks_for_is_found() -> None:
    ops = "from returnn_lite.ir import Loop\nfrom returnn_lite.ir.ops.search import Choose, Decide\n"
    assert primitives_asked_for(ops + "a = isinstance(op, Choose | Loop), Decide()") == {"Choose"}
    assert primitives_asked_for(ops + "a = isinstance(op, (Loop, Decide))") == {"Decide"}


def test_what_a_layer_may_ask_of_its_surroundings() -> None:
    """All of it: a layer that needs more should be given it as an operand, or say what it needs on its class."""
    names = {*Surroundings.__annotations__, *(name for name in vars(Surroundings) if not name.startswith("_"))}
    assert names == {
        "compilation",
        "given",
        "initial_output",
        "layer",
        "out_feature",
        "parameter",
        "search",
        "target",
    }


def test_install_line_for_gpus_names_every_dependency() -> None:
    setup = configparser.ConfigParser()
    setup.read(TOP / "setup.cfg")
    wanted = set(setup["options"]["install_requires"].split())
    line = next(x for x in (TOP / "docs/install.rst").read_text().splitlines() if "and-cuda" in x)
    given = {re.sub(r"^tensorflow\[and-cuda\]", "tensorflow-cpu", x.strip("'")) for x in line.split()[2:]}
    assert given == wanted
