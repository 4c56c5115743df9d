"""The running server's one store and one scheduler, shared by all pages."""

from __future__ import annotations

import logging
import threading

from core.errors import AssayError, StoreError
from core.jobs.folder import JobFolder
from core.jobs.scheduler import Scheduler
from core.settings import Settings
from db import collecting, experiments, jobs, pair_training, permission, similar_pairs
from db.leases import Leases
from db.store import Store

log = logging.getLogger("assay")


class GuardedScheduler(Scheduler):
    """The scheduler, whose commands ask what the role of who gives them allows."""

    def submit(self, folder: JobFolder) -> None:
        """Put a job in the queue."""
        permission.require("administer")
        super().submit(folder)

    def cancel(self, job_id: str) -> None:
        """Stop a job."""
        permission.require("administer")
        super().cancel(job_id)

    def resume(self, job_id: str) -> None:
        """Go on with a job."""
        permission.require("administer")
        super().resume(job_id)

    def set_priority(self, job_id: str, priority: int) -> None:
        """Move a job in the queue."""
        permission.require("administer")
        super().set_priority(job_id, priority)

    def remove(self, job_id: str) -> None:
        """Delete the folder of an ended job."""
        permission.require("administer")
        super().remove(job_id)


class Service:
    """Store and scheduler of one installation, from server start to server stop."""

    def __init__(self, settings: Settings) -> None:
        """Open the store and take up the jobs.

        Raises:
            StoreError: the store cannot be opened; nothing runs then.
        """
        self.settings = settings
        self.store = Store(settings.store_path, memory_limit=settings.store_memory)
        self.leases = Leases(self.store)
        settings.jobs_path.mkdir(parents=True, exist_ok=True)
        settings.exports_path.mkdir(parents=True, exist_ok=True)
        settings.prompts_path.mkdir(parents=True, exist_ok=True)
        (settings.home / "data").mkdir(parents=True, exist_ok=True)
        self.scheduler = GuardedScheduler(
            jobs_path=settings.jobs_path,
            cpu_jobs=settings.cpu_jobs,
            jobs_per_gpu=settings.jobs_per_gpu,
            network_jobs=settings.network_jobs,
            collected=lambda job_id: jobs.collected_shards(self.store, job_id),
            on_shard=self._collect,
            on_end=self._ended,
        )

    def _collect(self, job_id: str, shard: int) -> None:
        collecting.collect(self.store, self.job_folder(job_id), shard)

    def _ended(self, job_id: str, state: str) -> None:
        log.info("Job %s is %s.", job_id, state)
        self._go_on()

    def _go_on(self) -> None:
        """Begin what can begin in the experiments that are under way."""
        for experiment_id in experiments.open_ids(self.store):
            try:
                self.advance(experiment_id)
            except AssayError as error:  # of another version, or removed meanwhile: jobs must not wait for it
                log.error("Experiment %s cannot go on: %s", experiment_id, error)

    def start(self) -> None:
        """Start the scheduler thread; it takes up what ran or finished while no server was there."""
        jobs.record_missing(self.store, self.settings.jobs_path)
        self.scheduler.start()
        self._go_on()

    def stop(self) -> None:
        """Stop the thread and close the store. Jobs go on."""
        self.scheduler.stop()
        pair_training.stop_training(self.store)
        similar_pairs.stop_encoders()
        self.store.close()

    def job_folder(self, job_id: str) -> JobFolder:
        """The folder of a job of this installation."""
        return JobFolder(self.settings.jobs_path / job_id)

    def enqueue(self, folder: JobFolder) -> str:
        """Hand a written folder to the scheduler; returns the job id."""
        spec = folder.spec()
        self.scheduler.submit(folder)
        return spec.job_id

    def advance(self, experiment_id: int) -> None:
        """Begin what can begin in an experiment, and put its jobs into the queue.

        Raises:
            StoreError: the experiment is not there.
        """
        for folder in experiments.advance(
            self.store,
            self.settings.jobs_path,
            experiment_id,
            state_of=self.state_of,
            n_gpus=len(self.scheduler.gpus()),
        ):
            self.enqueue(folder)

    def resume_experiment(self, experiment_id: int) -> None:
        """Go on with an experiment of which a step failed or was stopped.

        Raises:
            AssayError: the experiment is not there, or a job cannot be resumed at this moment.
        """
        for folder in experiments.resume(
            self.store,
            self.settings.jobs_path,
            experiment_id,
            state_of=self.state_of,
            resume_job=self.scheduler.resume,
            n_gpus=len(self.scheduler.gpus()),
        ):
            self.enqueue(folder)

    def state_of(self, job_id: str) -> str | None:
        """The state of a job as of the scheduler's last tick; None: it knows no such job."""
        status = self.scheduler.statuses().get(job_id)
        return None if status is None else status.state

    def remove_job(self, job_id: str) -> None:
        """Delete the folder of an ended job and its record; what was collected from it stays.

        Raises:
            JobError: it is running.
        """
        self.scheduler.remove(job_id)
        jobs.forget(self.store, job_id)


_lock = threading.Lock()
_current: Service | None = None
_problem: str | None = None


def start(settings: Settings) -> Service | None:
    """Start the service of this process. A store that cannot be opened is remembered for the page that says so."""
    global _current, _problem
    with _lock:
        if _current is not None:
            return _current
        try:
            service = Service(settings)
        except AssayError as error:
            log.error("%s", error)
            _problem = str(error)
            return None
        service.start()
        _current, _problem = service, None
        return service


def stop() -> None:
    """Stop the service of this process, if there is one."""
    global _current, _problem
    with _lock:
        if _current is not None:
            _current.stop()
        _current, _problem = None, None


def problem() -> str | None:
    """Why there is no service, in plain words, or None."""
    return _problem


def current() -> Service:
    """The running service.

    Raises:
        StoreError: none runs; the message says why.
    """
    if _current is None:
        raise StoreError(_problem or "The server is still starting. Reload the page in a moment.")
    return _current
