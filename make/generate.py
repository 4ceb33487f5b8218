"""Generates gen/ from proto/: messages, stubs and their types. `--check` fails when gen/ is stale."""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO, GEN = ROOT / "proto", ROOT / "gen"


def main() -> int:
    """Regenerates gen/, or with --check compares it with a fresh generation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when gen/ is stale")
    if parser.parse_args().check:
        return check()
    with tempfile.TemporaryDirectory() as folder:  # a mistake in proto/ leaves gen/ as it is
        fresh = Path(folder) / "gen"
        generate(fresh)
        shutil.rmtree(GEN, ignore_errors=True)
        shutil.copytree(fresh, GEN)
    return 0


def generate(target: Path) -> None:
    """Writes all generated modules below target."""
    target.mkdir(parents=True, exist_ok=True)
    _protoc([f"--python_out={target}", f"--mypy_out=quiet:{target}"], PROTO.rglob("*.proto"))
    _protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet,only_async:{target}"], PROTO.rglob("*_service.proto"))
    for package in sorted({path.parent for path in target.rglob("*_pb2.py")}):
        _mark_typed(package)


def _protoc(outputs: list[str], sources: Iterable[Path]) -> None:
    bin_dir = Path(sys.executable).parent
    plugins = [f"--plugin={name}={bin_dir / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *plugins, *outputs]
    subprocess.run([*command, *sorted(map(str, sources))], check=True)


def _mark_typed(package: Path) -> None:
    (package / "py.typed").touch()


def check() -> int:
    """Returns 1 and names the differing files when gen/ is not what proto/ generates."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = sorted(_differences(Path(scratch)))
    for name in stale:
        print(f"gen/{name} is stale: run `make gen` and commit it", file=sys.stderr)
    return 1 if stale else 0


def _differences(fresh: Path) -> set[str]:
    names = {str(p.relative_to(d)) for d in (fresh, GEN) for p in d.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    return {n for n in names if not _same(fresh / n, GEN / n)}


def _same(a: Path, b: Path) -> bool:
    return a.is_file() and b.is_file() and filecmp.cmp(a, b, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
