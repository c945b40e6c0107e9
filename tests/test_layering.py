"""Imports run one way: between the packages, and between the rooms of `inference`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"generative": {"inference", "analyses"}, "inference": {"analyses"}}
# In import order. What lies beside the rooms is used by all of them, but for the entries.
ROOMS = ("running", "moves", "gaussians", "annealing", "kernels", "normalizer", "evidence")
ROOMS += ("results", "backends")
ENTRIES = {"feasible", "infer"}


def imported(path):
    """Modules that a file imports, wherever in the file, but for names of annotations alone."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if "TYPE_CHECKING" not in ast.unparse(node)[:16]]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_one_way(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & FORBIDDEN[package], path


def floor_of(module):
    """Height of a module of `inference`: it imports from no greater one."""
    name = module.split(".")[1]
    if name in ROOMS:
        return 1 + ROOMS.index(name)
    return 1 + len(ROOMS) if name in ENTRIES else 0


def test_rooms_import_one_way():
    for path in (ROOT / "inference").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module == "inference.__init__":
            continue
        for name in imported(path):
            if name.startswith("inference."):
                assert floor_of(name) <= floor_of(module), f"{path} imports {name}"


def test_no_module_imports_itself_by_others():
    """Lazy imports count: a cycle that hides in a function is a cycle."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in ("generative", "inference", "analyses")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {
        module: {
            found
            for name in imported(path)
            for found in (name, name.rpartition(".")[0])
            if found in files
        }
        for module, path in files.items()
    }
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}
