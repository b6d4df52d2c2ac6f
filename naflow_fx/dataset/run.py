"""`explain_dataset`: every photo of a source explained once, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from naflow_fx.dataset import required
from naflow_fx.errors import DatasetError, check_choice, unfit
from naflow_fx.options import open_device

if TYPE_CHECKING:
    from naflow_fx.dataset.job import Target
    from naflow_fx.dataset.results import Results

Engine = Literal["local", "ray", "torchrun"]


@dataclass(frozen=True)
class DatasetRun:
    """What one call of `explain_dataset` did.

    Attributes:
        out: the output folder.
        photos, failed: of the whole job when the call ended: all, and those without a row.
        found: what the call found when it began, in words.
        done: photos done in this call.
        seconds: from the first photo on; rate: photos a second.
        device_share: share of that time that the devices worked.
    """

    out: Path
    photos: int
    failed: int
    found: str
    done: int
    seconds: float
    rate: float
    device_share: float

    def results(self) -> Results:
        """The results, as `naflow_fx.open_results` opens them."""
        from naflow_fx.dataset.results import open_results

        return open_results(self.out)


def explain_dataset(
    explainer: Any,
    source: Any,
    out: str | Path,
    *,
    target: Target = None,
    maps: str | Sequence[str] | None = None,
    kind: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    part_size: int = 64,
    workers: int | None = None,
    engine: Engine = "local",
    actors: int | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> DatasetRun:
    """Explains every photo of a source into a folder of Parquet files, and goes on if it is there.

    A call that is killed, at any moment, is simply repeated: finished parts stay, the others are
    made, and the rows are those of a run that nothing interrupted, bit for bit on the same
    machine.  docs/batch.md describes the folder.

    Args:
        explainer: an `ExplainerSpec`, an `Explainer`, a model's name, an artefact's path, or a
            picklable callable: device -> Explainer.
        source: a folder, ImageFolder, list file, tar or Parquet file; see `sources.open_source`.
        out: the folder, made if there is none.
        target: a class for all photos; "label": the source's own; None: the predicted ones.
        maps: layers (names, globs) whose maps are stored, () for none; None: all computed.
            Measures are stored of all computed ones; the spec's `layers` chooses those.
        kind: of the source; None: from what is there.
        device: "cpu", "cuda", "cuda:1"; None: "cpu", or where a given Explainer is.
        batch_size: photos of one call of the explainer.
        part_size: photos of one file, a multiple of the batch.
        workers: processes that decode; 0: none, in this process.  None: as the machine has.
        engine: "local"; "ray" (extra `ray`): a Ray cluster, or this machine; "torchrun": rank
            and number of ranks from the environment, one share of the parts each.
        actors: explainers of the Ray engine; None: one a GPU, or two.
        retry_failed: make parts again that have failed photos.
        progress: a bar on a terminal, lines in a pipe, on stderr.

    Raises:
        DatasetError: no such source or device; the folder holds another job's results, or another
            run writes there; no photo could be opened; the disk is full.
        NaflowError: the explainer can't be made.
    """
    required("pyarrow.parquet", "explain_dataset")
    from naflow_fx.dataset.folder import Folder, check_ours
    from naflow_fx.dataset.job import RunJob
    from naflow_fx.dataset.lock import locked
    from naflow_fx.dataset.progress import Progress
    from naflow_fx.dataset.results import no_row, open_results
    from naflow_fx.dataset.runner import run_parts
    from naflow_fx.dataset.sources import open_source
    from naflow_fx.dataset.spec import as_spec

    check_choice(DatasetError, "explain_dataset", get_args(Engine), engine=engine)
    for name, value, least in (("workers", workers, 0), ("actors", actors, 1)):
        if value is not None and not (isinstance(value, int) and value >= least):
            wanted = f"{least} or more, or None"
            raise unfit(DatasetError, "explain_dataset", wanted, **{name: value})
    spec = as_spec(explainer)
    chosen = None if maps is None else (maps,) if isinstance(maps, str) else tuple(maps)
    rank, ranks = _rank() if engine == "torchrun" else (None, 1)
    place = _device(device, spec, rank)
    if engine != "ray":  # whose devices are elsewhere
        open_device(place, DatasetError)
    job = RunJob(spec, open_source(source, kind), target, place, batch_size, part_size, chosen)
    path = Path(out)
    check_ours(path)
    path.mkdir(parents=True, exist_ok=True)
    with locked(path, rank) as alone:
        folder = Folder(path, job, rank)
        with alone():
            notes = folder.begin()
        share = job.parts if rank is None else job.parts[rank::ranks]
        finished, found = folder.scan(share, retry_failed)
        photos = job.photos(share)
        shown = Progress(progress, photos, job.photos(finished), rank)
        for note in (*notes, found):
            shown.note(note)
        todo = [part for part in share if part not in finished]
        try:
            if engine == "ray":
                from naflow_fx.dataset.cluster import run_on_ray

                run_on_ray(folder, todo, actors, shown)
            else:
                run_parts(folder, todo, workers, shown)
        except BaseException:
            with alone(), suppress(OSError):  # a full disk is told by what was raised
                folder.write_failed()
            raise
        with alone():
            folder.write_failed()
        failed = sum(finished.values()) + shown.failed
        if failed == photos and photos:
            raise no_row(open_results(path))
        return DatasetRun(path, photos, failed, found, shown.done, shown.seconds, shown.rate,
                          shown.share)  # fmt: skip


def _rank() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun or Slurm tell.

    Raises:
        DatasetError: neither of them does.
    """
    for rank, ranks in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in os.environ and ranks in os.environ:
            return int(os.environ[rank]), int(os.environ[ranks])
    raise DatasetError("engine='torchrun': neither RANK and WORLD_SIZE nor SLURM_PROCID and "
                       "SLURM_NTASKS are set; start it with torchrun or srun")  # fmt: skip


def _device(device: str | None, spec: Any, rank: int | None) -> str:
    """The device's name; of a rank on GPUs its own one."""
    from naflow_fx.dataset.spec import Given

    if device is None:
        device = str(spec.make.explainer._like().device) if isinstance(spec.make, Given) else "cpu"
    if device == "cuda" and rank is not None:
        return f"cuda:{os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', '0'))}"
    return device
