"""The rules of the house for code: what a domain may import, what modules are called, how long they get."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kit.source import imports, tree

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("orchestrator", "provider_gateway", "session_store", "tool_executor")
MODULES = sorted((ROOT / "services").rglob("*.py")) + sorted((ROOT / "make").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# What would let the world into a decision.
WORLDLY = {"asyncio", "io", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "sqlite3", "ssl"}
WORLDLY |= {"subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid"}
SAYS_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "shared"}
LONGEST = 400
# Registries are read by looking a thing up, so length does not hurt.
REGISTRIES = {"services/chassis/faults.py"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("service", SERVICES)
def test_a_domain_imports_the_standard_library_and_faults_alone(service: str) -> None:
    for path in (ROOT / "services" / service / "domain").rglob("*.py"):
        for module in imports(path):
            top = module.partition(".")[0]
            allowed = _inside(module, f"{service}.domain") or _inside(module, "chassis.faults")
            allowed |= top in sys.stdlib_module_names and top not in WORLDLY
            assert allowed, f"{_name(path)} imports {module}"


@pytest.mark.feature("R3")
def test_decide_is_imported_by_drive_alone() -> None:
    importers = {_name(path) for path in MODULES for module in imports(path) if _inside(module, "orchestrator.domain.decide")}
    assert importers == {"services/orchestrator/operations/drive.py"}


def test_layers_and_services_import_as_the_linter_allows() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-logo"], cwd=ROOT, env={"PYTHONPATH": "services:gen"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_app_is_the_one_module_of_a_service_that_imports_its_adapters() -> None:
    for service in SERVICES:
        outside = (path for path in (ROOT / "services" / service).rglob("*.py") if "adapters" not in path.parts and path.name != "app.py")
        for path in outside:
            assert not [module for module in imports(path) if _inside(module, f"{service}.adapters")], _name(path)


def test_every_module_says_what_lives_in_it() -> None:
    silent = [_name(path) for path in MODULES if not ast.get_docstring(tree(path))]
    assert silent == []


def test_modules_stay_short_enough_to_be_read() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST and name not in REGISTRIES} == {}


def test_names_say_what_a_module_holds() -> None:
    assert [_name(path) for path in MODULES + TESTS if path.stem.strip("_") in SAYS_NOTHING] == []


def test_test_files_have_unique_names() -> None:
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
