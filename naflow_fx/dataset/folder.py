"""The output folder of a run: what it is of, which parts are there, what is still to do.

manifest.json    the job and its hash; where the source lies, versions
explainer.json   layers, shapes, class names, hashes of weights and program
parts/           part-000000.parquet, ...
failed.jsonl     photos without a row and why; made of the parts' metadata when a run ends
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from naflow_fx.dataset import EXPLAINER, FAILED, LOCK, MANIFEST, PARTS, STAGES
from naflow_fx.dataset.job import RunJob, differences, job_hash
from naflow_fx.dataset.parts import Layout, Rows, as_table, part_name, read_facts, write_part
from naflow_fx.errors import DatasetError
from naflow_fx.files import write

DAMAGED = "_damaged-"  # before a part's name; readers of Parquet folders skip such names


class Folder:
    """An output folder, as one process or, of several that share the parts, one rank writes it.

    Attributes:
        path: where.
        job: what it is of.
        rank: None: this process makes all parts.
        wanted: the job as plain data; hash: of that.
        threads: of torch, for processes elsewhere.
    """

    def __init__(self, path: Path, job: RunJob, rank: int | None) -> None:
        self.path, self.job, self.rank = path, job, rank
        self.wanted = json.loads(json.dumps(job.to_json()))
        self.hash, self.threads = job_hash(self.wanted), torch.get_num_threads()

    def begin(self) -> list[str]:
        """Makes it, or takes what an earlier call of the same job left; gives notes for people.

        Raises:
            DatasetError: it holds the results of another job.
        """
        path, job, there = self.path, self.job, environment(self.job.device)
        self.parts.mkdir(exist_ok=True)
        earlier = _manifest(path / MANIFEST)
        # the folder is that job's when its explainer has been made
        begun = (path / EXPLAINER).exists() or any(self.parts.glob("*.parquet"))
        if earlier is None or not begun:
            place = {"kind": job.source.kind, "place": os.path.abspath(job.source.place)}
            facts = {"job": self.wanted, "hash": self.hash, "source": place, "environment": there}
            _write(path / MANIFEST, json.dumps(facts, indent=1) + "\n")
            return []
        if unlike := differences(earlier["job"], self.wanted):
            raise DatasetError(f"{path}: holds the results of another job ({'; '.join(unlike)}); "
                               "repeat the call that began it, or choose a new "
                               "folder")  # fmt: skip
        changed = differences(earlier["environment"], there)
        return [f"rows may differ in their last bits: {line}" for line in changed]

    @property
    def parts(self) -> Path:
        """The folder of the parts."""
        return self.path / PARTS

    @property
    def _stages(self) -> str:
        """How the names of what is being written begin."""
        return f"{STAGES}local-" if self.rank is None else f"{STAGES}r{self.rank}-"

    def _clear(self) -> int:
        """Removes the unfinished files of an earlier life, of a rank its own; how many."""
        name = f"{STAGES}*" if self.rank is None else f"{self._stages}*"
        stages = [*self.parts.glob(name), *self.path.glob(name)]
        for stage in stages:
            if stage.is_dir():
                shutil.rmtree(stage)
            else:  # of Ray, or of an earlier version
                stage.unlink(missing_ok=True)
        return len(stages)

    def scan(self, share: Sequence[int], retry_failed: bool) -> tuple[dict[int, int], str]:
        """The finished parts of a share, with how many of their photos failed; and all in words.

        Removes what is unfinished, puts damaged parts aside, and leaves out those that are made
        again for their failed photos' sake.
        """
        removed, damaged, again = self._clear(), 0, 0
        finished: dict[int, int] = {}
        for part in share:
            path = self.parts / part_name(part)
            if not path.exists():
                continue
            try:
                lost = self._check(part, path)
            except (ValueError, KeyError, TypeError, OSError):
                path.rename(self.parts / (DAMAGED + path.name))
                damaged += 1
                continue
            if lost and retry_failed:
                again += 1
            else:
                finished[part] = lost
        more = {"of them failed": sum(finished.values()), "unfinished files removed": removed,
                "damaged parts put aside": damaged,
                "parts made again for their failed photos": again}  # fmt: skip
        words = "; ".join(f"{count} {what}" for what, count in more.items() if count)
        photos, done = self.job.photos(share), self.job.photos(finished)
        if not finished and not words:
            return finished, f"{photos} photos to explain, none done yet"
        return finished, (f"found {done} of {photos} photos done in {len(finished)} parts"
                          f"{f' ({words})' if words else ''}; {photos - done} to go")  # fmt: skip

    def _check(self, part: int, path: Path) -> int:
        """Failed photos of a part; ValueError if it isn't this job's, or isn't whole."""
        facts, rows = read_facts(path)
        lost = len(facts["failed"])
        whole = rows + lost == len(self.job.positions(part))
        if not whole or (facts["part"], facts["job"]) != (part, self.hash):
            raise ValueError(f"{path}: not part {part} of this job")
        return lost

    def write(self, part: int, rows: Sequence[Rows], layout: Layout) -> None:
        """A part, on the disk when this returns.

        Raises:
            DatasetError: the disk is full, or as `agree`.  OSError: it can't be written.
        """
        self.agree(layout)
        write_part(self.parts, part, as_table(part, self.hash, rows, layout), self._stages)

    def agree(self, layout: Layout) -> None:
        """Writes what the explainer is, or compares it with what other processes wrote.

        Raises:
            DatasetError: another explainer: weights drawn at random, a file that has changed.
        """
        text, path = json.dumps(asdict(layout), indent=1) + "\n", self.path / EXPLAINER
        _create(path, text)
        unlike = differences(json.loads(path.read_text("utf-8")), json.loads(text))
        if unlike:
            raise DatasetError(f"{self.path}: the parts there were made by another explainer ("
                               f"{'; '.join(unlike[:3])}). Weights drawn at random? Seed them in "
                               "make, or load them from a file. Else choose a new "
                               "folder")  # fmt: skip

    def write_failed(self) -> None:
        """failed.jsonl, of what the parts say."""
        lines = [json.dumps(line, ensure_ascii=False) + "\n"
                 for path in sorted(self.parts.glob("part-*.parquet"))
                 for line in read_facts(path)[0]["failed"]]  # fmt: skip
        _write(self.path / FAILED, "".join(lines))


def check_ours(path: Path) -> None:
    """Nothing if results can go there; DatasetError if a folder holds something else."""
    if not path.exists() or (path / MANIFEST).exists():
        return
    if not path.is_dir():
        raise DatasetError(f"{path} is a file, not a folder; choose another place")
    there = [*path.iterdir(), *(path / PARTS).glob("*")]
    # but for what a call leaves that is killed before its manifest is there
    others = [str(found.relative_to(path)) for found in there
              if found.name not in (LOCK, PARTS) and not found.name.startswith(STAGES)
              ]  # fmt: skip
    if others:
        raise DatasetError(f"{path}: not empty, and not of an earlier run ({min(others)}, ...); "
                           "choose a new folder")  # fmt: skip


def environment(device: str) -> dict[str, Any]:
    """What may change the last bits of a result, and does not keep a run from going on."""
    import torchvision

    found = {
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "naflow-fx": version("naflow-fx"),
        "pillow": version("pillow"),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _write(path: Path, text: str) -> None:
    """A small file, whole or not at all, and on the disk when this returns."""
    write(path, text, STAGES, durable=True)


def _manifest(path: Path) -> dict[str, dict[str, Any]] | None:
    """The job of an earlier call and its environment; DatasetError for another file."""
    try:
        facts = json.loads(path.read_text("utf-8"))
        return {name: dict(facts[name]) for name in ("job", "environment")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not a manifest of a run ({error}); choose a new "
                           "folder") from error  # fmt: skip


def _create(path: Path, text: str) -> None:
    """Makes a file whole and on the disk, unless it exists: of several processes one does."""
    if path.exists():
        return
    with TemporaryDirectory(prefix=STAGES, dir=path.parent) as stage:
        made = write(Path(stage, path.name), text, durable=True)
        try:
            os.link(made, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: the last one wins, as all are the same
            os.replace(made, path)
