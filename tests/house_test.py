"""Which module may import which, how long a file and how dense a statement may be.

Read from the source alone.
"""

import ast
import functools
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@functools.cache
def sources() -> dict[str, str]:
    """The texts of the two packages' modules by their dotted names."""
    found = {}
    for package in ("zoo", "zoo_datasets"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            found[name] = path.read_text(encoding="utf-8")
    return found


@functools.cache
def modules() -> dict[str, ast.Module]:
    """The modules as syntax trees."""
    return {name: ast.parse(text) for name, text in sources().items()}


@functools.cache
def imported(module: str) -> list[tuple[str, str, str]]:
    """(module, name or "", local name) of its imports of our modules, those in functions too."""
    found = []
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in modules():
                    found.append((alias.name, "", alias.asname or alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: expected no relative import"
            for alias in node.names:
                local = alias.asname or alias.name
                if f"{node.module}.{alias.name}" in modules():
                    found.append((f"{node.module}.{alias.name}", "", local))
                elif node.module in modules():
                    found.append((node.module, alias.name, local))
    return found


@functools.cache
def arrows() -> list[tuple[str, str]]:
    """(importing module, imported module)."""
    return [
        (name, module) for name in modules() for module, _, _ in imported(name) if module != name
    ]


def test_the_modules_are_found():
    assert {"zoo", "zoo.registry", "zoo_datasets", "zoo_datasets.cases"} <= set(modules())
    assert ("zoo_datasets.sources", "zoo_datasets.cases") in arrows()


def test_no_module_imports_itself_by_way_of_others():
    graph: dict[str, set[str]] = {}
    for name, module in arrows():
        graph.setdefault(name, set()).add(module)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def data_set(module: str) -> str:
    """The data set that a module belongs to; "" where it belongs to none."""
    match = re.match(r"zoo_datasets\.(\w+)", module)
    own = match and f"zoo_datasets.{match[1]}.{match[1]}_dataset_builder"
    return match[1] if match and own in modules() else ""


def test_no_data_set_imports_another():
    assert data_set("zoo_datasets.ldct.tcia") == "ldct" and not data_set("zoo_datasets.phantoms")
    wrong = []
    for name, module in arrows():
        if data_set(module) and data_set(name) != data_set(module):
            wrong.append(f"{name} imports {module}")
    assert not wrong


def test_no_model_imports_another():
    """What two of them share lies in a module that begins with an underscore, or elsewhere."""
    wrong = []
    for name, module in arrows():
        if re.match(r"zoo\.models\.", name) and re.match(r"zoo\.models\.[^_]", module):
            wrong.append(f"{name} imports {module}")
    assert not wrong


def test_private_names_stay_in_their_module():
    wrong = []
    for module, tree in modules().items():
        whole = set()
        for source, name, local in imported(module):
            if re.match("_[^_]", name):
                wrong.append(f"{module}: {source}.{name}")
            elif not name:
                whole.add(local)
        for node in ast.walk(tree):
            private = isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr)
            if private and ast.unparse(node.value) in whole:
                wrong.append(f"{module}: {ast.unparse(node)}")
    assert not wrong


def test_files_are_short():
    long = []
    for name, text in sources().items():
        if name.split(".")[0] == "zoo" and len(text.splitlines()) > 550:
            long.append(name)
    assert not long


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def expressions(statement: ast.stmt) -> list[ast.AST]:
    """All nodes of a statement that belong to no statement inside it."""
    found, left = [], list(ast.iter_child_nodes(statement))
    while left:
        node = left.pop()
        if not isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            found.append(node)
            left += ast.iter_child_nodes(node)
    return found


def test_a_statement_has_one_comprehension_and_one_ternary_at_most():
    dense = []
    for module, tree in modules().items():
        for statement in ast.walk(tree):
            if not isinstance(statement, ast.stmt) or hasattr(statement, "decorator_list"):
                continue
            nodes = expressions(statement)
            loops = sum(isinstance(node, COMPREHENSIONS) for node in nodes)
            choices = sum(isinstance(node, ast.IfExp) for node in nodes)
            if loops > 1 or choices > 1:
                dense.append(f"{module}:{statement.lineno}")
    assert not dense


def test_a_long_function_says_its_steps():
    silent = []
    for module, tree in modules().items():
        lines = sources()[module].splitlines()
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            body = function.body[1:] if ast.get_docstring(function) else function.body
            if not body or function.end_lineno - body[0].lineno < 30:
                continue
            inside = lines[body[0].lineno - 2 : function.end_lineno]
            if sum(bool(re.search(r"(^|\s)# ", line)) for line in inside) < 2:
                silent.append(f"{module}:{function.lineno} {function.name}")
    assert not silent
