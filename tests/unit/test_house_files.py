"""The rules of the house for everything in the repository: nothing of one machine, pages that are fresh, pins that are hashed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from suite.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = sorted((ROOT / "requirements").glob("*.txt"))
SERVICES = {"orchestrator": 50051, "provider_gateway": 50052, "tool_executor": 50053, "session_store": 50054}

# Written in pieces, so that this file does not find itself.
MACHINE = [r"/" + r"work/", r"/" + r"root/", r"/tmp/" + r"v/", r"/" + r"home/[a-z]", r"\.pyenv" + r"/"]
HOSTS = ["pypi" + r"\.org", "pythonhosted" + r"\.org", "npmjs" + r"\.org", "crates" + r"\.io", "maven" + r"\.org", "golang" + r"\.org/x"]
HOSTS += ["deb\\.debian" + r"\.org", "proxy\\.golang" + r"\.org", "repo1?\\.maven"]


@cache
def _files() -> list[Path]:
    """What git tracks or would: everything that is not ignored."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("optional: this is not a git checkout")
    return [path for name in listing.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def _finding(pattern: str) -> list[str]:
    regex = re.compile(pattern)
    return [str(path.relative_to(ROOT)) for path in _files() if regex.search(path.read_text(errors="replace"))]


@pytest.mark.parametrize("pattern", MACHINE)
def test_no_file_names_a_place_on_one_machine(pattern: str) -> None:
    assert _finding(pattern) == []


@pytest.mark.parametrize("host", HOSTS)
def test_no_file_names_a_package_registry(host: str) -> None:
    assert _finding(host) == []


@pytest.mark.feature("X6")
def test_the_reference_pages_are_what_the_code_says() -> None:
    done = subprocess.run([sys.executable, ROOT / "make" / "docs.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.feature("G1")
def test_the_protos_are_lint_clean_commented_and_break_nobody() -> None:
    done = subprocess.run([sys.executable, ROOT / "make" / "protos.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.feature("G1")
def test_the_generated_code_is_what_the_protos_say() -> None:
    done = subprocess.run([sys.executable, ROOT / "make" / "generate.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.feature("X6")
def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "services").rglob("*.md")]:
        named = set(re.findall(r"(?:^ {4}|^\$ |`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page.name


@pytest.mark.feature("X6")
def test_every_behest_command_that_a_page_names_exists() -> None:
    commands = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    for page in (path for path in _files() if path.suffix == ".md"):
        named = set(re.findall(r"(?:^ {4}|^\$ |`|bin/)behest ([a-z][a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= commands, page.name


@pytest.mark.feature("X6")
def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (path for path in _files() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.feature("X1")
def test_the_readme_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_every_claimed_feature_exists() -> None:
    done = subprocess.run([sys.executable, ROOT / "make" / "features.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.stem)
def test_requirements_are_pinned_and_hashed_and_name_no_place(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.match(r"[a-z0-9-]+(\[[a-z,-]+\])?==\S+( ; .+)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$", line), line


def test_what_is_tested_is_what_is_shipped() -> None:
    """Every requirements file has the versions of dev.txt; the benchmarks' peers hold some back and stand apart."""
    tested = _pins(ROOT / "requirements" / "dev.txt")
    for path in (path for path in REQUIREMENTS if path.stem not in {"bench", "installer", "litellm"}):
        shipped = _pins(path)
        assert {name: version for name, version in shipped.items() if tested.get(name, version) != version} == {}, path.name


def test_every_direct_dependency_is_pinned_and_says_why() -> None:
    extras = PROJECT["optional-dependencies"]
    pinned = set().union(*(_pins(path) for path in REQUIREMENTS))
    for requirement in [*PROJECT["dependencies"], *(each for extra in extras.values() for each in extra)]:
        name = re.split(r"[>\[]", requirement)[0]
        assert name == "behest" or name in pinned, f"{name} is not pinned: make lock"
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if re.match(r' {4}"[a-z0-9-]+>=', line) and "setuptools" not in line:
            assert " # " in line, f"{line.strip()} does not say why"


def test_the_images_differ_in_nothing_but_the_service() -> None:
    forms = {
        (ROOT / "services" / service / "Dockerfile")
        .read_text()
        .replace(service.replace("_", "-"), "SERVICE")
        .replace(service, "SERVICE")
        .replace(str(port), "PORT")
        for service, port in SERVICES.items()
    }
    assert len(forms) == 1


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)(?:\[[a-z,-]+\])?==(\S+)", path.read_text(), re.MULTILINE))
