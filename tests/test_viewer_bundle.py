"""What is committed as the page's code is what its source builds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

VIEWER = Path(__file__).parent.parent / "naflow_fx" / "view" / "page"
WEB, BUNDLE = VIEWER / "web", VIEWER / "bundle"


def test_the_bundle_was_built_from_this_source() -> None:
    recorded = json.loads((BUNDLE / "sources.json").read_text())
    names = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"]
    names += [f"src/{path.name}" for path in (WEB / "src").iterdir()]
    hashes = {name: hashlib.sha256((WEB / name).read_bytes()).hexdigest() for name in names}
    assert recorded == hashes, "the page's source has changed: run `make viewer`"


def test_every_package_in_the_bundle_comes_with_its_licence() -> None:
    text = (BUNDLE / "THIRD_PARTY.txt").read_text()
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]
    shipped = {
        name.removeprefix("node_modules/"): entry["version"]
        for name, entry in lock.items()
        if name and not entry.get("dev")
    }
    assert len(shipped) >= 5
    for name, version in shipped.items():
        assert f"{name} {version} (MIT)\n" in text
    assert text.count("Permission is hereby granted") == len(shipped)


@pytest.mark.slow
def test_building_gives_the_same_files() -> None:
    if not (WEB / "node_modules").is_dir() or shutil.which("npm") is None:
        pytest.skip("needs npm and the packages: npm ci, in naflow_fx/view/page/web")
    done = subprocess.run(
        ["npm", "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True, check=False,
        env={**os.environ, "CI": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
