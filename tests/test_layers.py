"""Imports point down, and time, chance and the environment come in through constructors."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "bifrost_core"
PLUGINS = ROOT / "plugins" / "bifrost_plugins"

# From the ground up. A module or sub-package imports what stands below it, and inside a sub-package its siblings.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"_errors", "kinds", "clocks", "media", "interruptions", "roots", "limiter", "copies"})
    | frozenset({"name_rules"}),
    frozenset({"blocks", "bodies", "cache_options", "forms", "keys", "timeouts", "decompression", "docstrings"})
    | frozenset({"response_objects"}),
    frozenset({"types", "wire"}),
    frozenset({"contexts", "prices"}),
    frozenset({"estimates"}),
    frozenset({"attempts"}),
    frozenset({"responses"}),
    frozenset({"calls", "errors", "handover"}),
    frozenset({"portals", "structured", "tools"}),
    frozenset({"balancing", "hedging", "hookspecs", "lifespans", "requests", "resuming"}),
    frozenset({"file_requests", "response_events", "responses_bodies"}),
    frozenset({"replay", "streams"}),
    frozenset({"engines", "health", "hooks", "operations", "retries"}),
    frozenset({"providers"}),
    frozenset({"catalog", "config", "deployments", "dialects", "sender"}),
    frozenset({"asgi", "clients", "flights"}),
    frozenset({"routing"}),
    frozenset({"runs"}),
    frozenset({"stream_runs"}),
    frozenset({"router"}),
    frozenset({"sync_streams", "testing"}),
    frozenset({"sync"}),
    frozenset({"cli", "sdks"}),
    frozenset({"__init__", "__main__"}),
)
FLOOR_OF = {unit: number for number, units in enumerate(FLOORS) for unit in units}

# Who may read what by itself; everything else is given its clock, its random numbers and its settings.
ROOMS = {
    "bifrost_core/clocks.py": {"time.monotonic", "time.time"},
    "bifrost_core/balancing/latency_weighted.py": {"time.monotonic"},  # the default of an argument
    "bifrost_core/keys.py": {"os.environ"},
    "bifrost_core/router.py": {"os.environ"},  # Router.from_env
}
FREE_ROOMS = ("bifrost_core/cli/", "bifrost_core/testing/")
TYPES = {"random.Random"}  # a class, not a source of its own

SOURCES = sorted([*CORE.rglob("*.py"), *PLUGINS.rglob("*.py")])
every_source = pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in SOURCES])


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    parts = path.relative_to(CORE.parent if path.is_relative_to(CORE) else PLUGINS.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


def imports_of(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that a file imports, by its full name; also inside functions."""
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in MODULES else base), node


def unit_of(module: str) -> str:
    """The module or sub-package of ``bifrost_core`` that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_module_has_one_floor() -> None:
    assert {unit_of(module_of(path)) for path in SOURCES if path.is_relative_to(CORE)} == set(FLOOR_OF)
    assert sum(map(len, FLOORS)) == len(FLOOR_OF)


@every_source
def test_imports_point_down(path: Path) -> None:
    if not path.is_relative_to(CORE):
        return
    unit = unit_of(module_of(path))
    upwards = [
        f"{imported}, line {node.lineno}"
        for imported, node in imports_of(path)
        if imported.split(".")[0] == "bifrost_core"
        and unit_of(imported) != unit
        and FLOOR_OF[unit_of(imported)] >= FLOOR_OF[unit]
    ]
    assert upwards == []


def test_no_module_imports_itself_on_a_detour() -> None:
    graph = {module_of(path): {name for name, _ in imports_of(path) if name in MODULES} for path in SOURCES}
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for imported in graph[module] - {module}:
                walk(imported, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())
    assert done == MODULES


@every_source
def test_parents_are_imported_absolutely_and_siblings_relatively(path: Path) -> None:
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for imported, node in imports_of(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"line {node.lineno}: from {'.' * node.level}…"
        elif path.name != "__main__.py" and (imported == package or imported.startswith(f"{package}.")):
            pytest.fail(f"line {node.lineno}: {imported} is a sibling; write from .{imported[len(package) + 1 :]}")


@every_source
def test_the_core_knows_no_plugin_and_plugins_only_what_is_public(path: Path) -> None:
    for imported, node in imports_of(path):
        if path.is_relative_to(CORE):
            assert imported.split(".")[0] not in {"bifrost_plugins", "plugins"}
        elif imported.split(".")[0] == "bifrost_core":
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            private = [part for part in [*imported.split("."), *names] if part.startswith("_")]
            assert private == [], f"line {node.lineno}"


@every_source
def test_nothing_belongs_to_one_event_loop_or_to_the_type_checker_alone(path: Path) -> None:
    tree = tree_of(path)
    imported = {name.split(".")[0] for name, _ in imports_of(path)}
    assert imported.isdisjoint({"asyncio"})
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "TYPE_CHECKING" not in names


@every_source
def test_every_module_says_what_it_is_for_and_postpones_annotations(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree)
    others = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if others:
        first = others[0]
        assert isinstance(first, ast.ImportFrom)
        assert (first.module, [alias.name for alias in first.names]) == ("__future__", ["annotations"])


@every_source
def test_time_chance_and_the_environment_come_in_through_constructors(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    if name.startswith(FREE_ROOMS):
        return
    tree = tree_of(path)
    aliases = {
        alias.asname or alias.name: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    read = {
        f"{aliases[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
    }
    read |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    }
    watched = {each for each in read if each.split(".")[0] in {"time", "random"}} | (read & {"os.environ", "os.getenv"})
    assert watched - TYPES == ROOMS.get(name, set())
