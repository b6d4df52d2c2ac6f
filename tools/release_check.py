"""Whether a release would work: `make release-check`.

The source distribution and, from it, the wheel are built; the wheel is installed into an empty
environment; from a folder without the checkout, the demo and the Python blocks of the README run.
What was built is left in dist/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
COPIED = ("README.md", "docs", "examples", "tests/test_docs.py", "tests/docs_world.py")
INSTALLED = """import naflow_fx, sys
print(naflow_fx.__file__)
sys.exit("site-packages" not in naflow_fx.__file__)"""
METHODS = ("naflow", "focused", "layercam")
LAYERS = ("stem_act", "blocks.8.project_bn", "head_act")


def run(*command: str | Path, cwd: Path) -> None:
    """A command that must succeed, in an environment that knows nothing of the checkout."""
    print("$", *command, flush=True)
    known = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([str(part) for part in command], cwd=cwd, env=known, check=True)


def built() -> Path:
    """The wheel, built from the source distribution; both checked as PyPI would."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", DIST, ROOT, cwd=ROOT)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir()), cwd=ROOT)
    (wheel,) = DIST.glob("*.whl")
    return wheel


def furnish(place: Path) -> None:
    """What a user has beside the package: README, photos, and the tests that read README."""
    for name in COPIED:
        source, target = ROOT / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)


def main() -> None:
    """Build, install, use."""
    wheel = built()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = place / "env" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel, "pytest", cwd=place)
        furnish(place)
        run(python, "-c", INSTALLED, cwd=place)
        photo, layers = "examples/coffee.png", ("--layers", *LAYERS)
        command = python.parent / "naflow-fx"
        run(command, "explain", photo, "--out", "demo", "--methods", *METHODS, *layers, cwd=place)
        assert (place / "demo" / "coffee" / "rows.png").stat().st_size > 10_000
        run(command, "report", photo, "--out", "demo/coffee.html", "--small", *layers, cwd=place)
        run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_docs.py", "-k",
            "README", cwd=place)  # fmt: skip
    print(f"ready: {', '.join(path.name for path in sorted(DIST.iterdir()))}")


if __name__ == "__main__":
    main()
