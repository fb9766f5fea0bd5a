"""The training loop: batches in, checkpoints, curves and models out."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich import progress as bars
from rich.console import Console

from codec.codec import Codec
from codec.config import Config
from codec.data.batches import Batch, batches
from codec.data.corpus import held_out_clips, load_corpus, training_crops
from codec.errors import ModelFileError, TrainingError
from codec.evaluation.judges import Settings, chosen, formula
from codec.evaluation.pool import ScorePool
from codec.model_file import read_model_file
from codec.training.learner import Learner, StepReport
from codec.training.monitor import Means, Meter, Monitor, logging_to
from codec.training.processes import any_process, usable_precision
from codec.training.progress import Progress
from codec.training.run import RunFolder, open_run, record_config
from codec.training.validation import Clip, is_better, validate

_SECONDS_TO_BEGIN = 600.0  # of crops that a voice's linear paths begin from
_CHECKPOINT_VERSION = 2  # raised when the state that a checkpoint holds has another meaning


def train(config: Config, *, resume: bool = False, console: Console | None = None) -> RunFolder:
    """Trains a codec as the config says; see `Trainer`."""
    return Trainer(config, resume=resume, console=console).run()


class Trainer:
    """One run, from its first or its last checkpointed step.

    Args:
        config: the run.
        resume: go on from the newest checkpoint, if there is one.
        console: where progress goes; none: the terminal's standard error.

    Raises:
        SottoError: what is wrong with config, data, or the run's folder.
    """

    def __init__(
        self, config: Config, *, resume: bool = False, console: Console | None = None
    ) -> None:
        self.config = config
        validation = config.validation
        chosen(validation.scored_metrics)  # one that cannot be had is told before the data is read
        self.folder, begun = open_run(config, resume=resume)
        # Without cpu=True, Accelerator takes processes that have no GPU for strangers.
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision=usable_precision(config.training.mixed_precision),
        )
        if config.threads is not None:
            torch.set_num_threads(config.threads)  # last: Accelerator sets it, too
        self.is_main = self.accelerator.is_main_process
        self.console = (console or Console(stderr=True)) if self.is_main else Console(quiet=True)
        set_seed(config.seed + self.accelerator.process_index)
        with logging_to(self.console), bars.Progress(console=self.console) as bar:
            corpus = load_corpus(config, bar if self.is_main else None)
            with self.accelerator.main_process_first():  # one process analyses for all
                self.crops = training_crops(config, corpus, bar if self.is_main else None)
            clips = held_out_clips(config, corpus) if self.is_main else []
        self.clips = [Clip(*clip) for clip in clips]
        initial_model = None if begun else config.training.initial_model
        self.learner = Learner(config, self.accelerator, initial_model)
        self.progress = Progress(
            best_by=formula(validation.best_weights),
            losses=read_model_file(initial_model).losses if initial_model else {},
        )
        if begun:
            self._load(begun)
        elif initial_model is None and self.learner.voice is not None:
            self._begin_voice()
        if self.progress.losses is not None:
            self.progress.losses |= config.losses.weights()
        if self.is_main:
            record_config(self.folder, config)
        self.resumed = resume
        self.stopped = False
        self._stop_asked = False

    def run(self) -> RunFolder:
        """Trains to the last step, the time limit or Ctrl-C; what was learnt is saved.

        `stopped` tells afterwards whether it was Ctrl-C (or SIGTERM).

        Raises:
            TrainingError: it cannot go on; the message says what is saved and what would do.
        """
        config = self.config
        with ExitStack() as stack:
            stack.enter_context(self._stopping_on_signals())
            self.monitor = (
                stack.enter_context(
                    Monitor(
                        self.folder.path,
                        steps=config.training.steps,
                        begun=self.progress.step,
                        sample_rate=config.model.sample_rate,
                        console=self.console,
                    )
                )
                if self.is_main
                else None
            )
            stack.enter_context(logging_to(self.console))
            self.pool = stack.enter_context(self._score_pool())
            self._announce()
            try:
                self._loop()
            except OSError as error:
                raise TrainingError(
                    f"{self.folder.path}: step {self.progress.step}: {error}; {self._intact()}"
                ) from error
        return self.folder

    def _score_pool(self) -> ScorePool:
        config = self.config
        settings = Settings(config.model.hop_length / config.model.sample_rate)
        return ScorePool(config.validation.workers, config.validation.scored_metrics, settings)

    def _loop(self) -> None:
        training, validation = self.config.training, self.config.validation
        begun = time.monotonic()
        meter = Meter(self.config, self.accelerator.num_processes)
        means = Means()
        for batch in self._batches():
            if self.progress.step >= training.steps:
                break
            means.add(self._step(batch).scalars)
            meter.count()
            step = self.progress.step
            last = step == training.steps
            logs = step % training.log_every == 0 or last
            if logs:
                self._log(means, meter)
            # Asking the others costs an exchange, so it is done when values are logged anyway.
            asks = logs or self.accelerator.num_processes == 1
            late = training.max_minutes and time.monotonic() - begun > 60 * training.max_minutes
            late = asks and self._any(bool(late))
            stop = asks and self._any(self._stop_asked)
            improved = False
            if step % validation.every == 0 or last or late:
                improved = self._validate()
            if step % training.checkpoint_every == 0 or last or late or stop or improved:
                self._save()
            if late or stop:
                why = "out of time" if late else "stopped"
                self._say(f"{why} at step {step}, saved; --resume goes on from here")
                self.stopped = stop
                break

    def _begin_voice(self) -> None:
        """Gives a new voice linear paths that say what the first few minutes of crops have."""
        data = self.config.data
        seconds = data.batch_size * data.segment_samples / self.config.model.sample_rate
        count = math.ceil(_SECONDS_TO_BEGIN / seconds)
        unexplained = self.learner.begin_voice(list(islice(self._batches(), count)))
        if self.is_main:
            self.console.print(
                f"linear paths: {unexplained:.1%} of the envelope's power unexplained",
                highlight=False,
            )

    def _any(self, flag: bool) -> bool:
        return any_process(flag, self.accelerator.device)

    def _batches(self) -> Iterator[Batch]:
        data = self.config.data
        loader = batches(
            self.crops,
            batch_size=data.batch_size,
            start_step=self.progress.step,
            workers=data.workers,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        for batch in loader:
            yield batch.to(self.accelerator.device)

    def _step(self, batch: Batch) -> StepReport:
        progress = self.progress
        report = self.learner.step(progress.step, batch)
        progress.step += 1
        if report.skipped:
            progress.skipped += 1
            progress.trouble += 1
            self._give_up_if_hopeless()
        else:
            progress.trouble = max(progress.trouble - 0.5, 0.0)
        if self.learner.revival_is_due(progress.step):
            self._log_codebooks()
            self._log_scalars({"codebooks/revived": float(self.learner.revive_dead_codes())})
        elif self._usage_is_due():
            self._log_codebooks()
            self.learner.model.quantizer.reset_usage()
        if self.monitor is not None:
            self.monitor.advance(progress.step)
        return report

    def _usage_is_due(self) -> bool:
        """Where nothing revives codes, their usage is logged as often as the model is validated."""
        revives = self.config.codebooks.revive_every > 0
        validates = self.progress.step % self.config.validation.every == 0
        return validates and not revives and not self.learner.model.encoder_frozen

    def _intact(self) -> str:
        steps = self.folder.checkpoints.steps()
        return f"the checkpoint of step {steps[-1]} is intact" if steps else "nothing was saved yet"

    def _give_up_if_hopeless(self) -> None:
        limit = self.config.training.max_nonfinite_steps
        if self.progress.trouble < limit:
            return
        raise TrainingError(
            f"step {self.progress.step}: losses or gradients keep being not finite "
            f"({self.progress.skipped} steps skipped); {self._intact()}. Lower "
            "optimizer.learning_rate or optimizer.clip_norm, or set training.mixed_precision: no"
        )

    def _validate(self) -> bool:
        """Scores the averaged model; whether it is the best so far."""
        validation, progress = self.config.validation, self.progress
        improved = False
        if self.is_main and self.monitor is not None:
            codec = self._codec()
            result = validate(codec, self.clips, kbps=self.config.validation_kbps(), pool=self.pool)
            self.monitor.log_validation(progress.step, result, self.clips, validation.logged_clips)
            value = result.merit(validation.best_weights)
            for line in result.lines():
                self._say(f"step {progress.step}, {line}")
            if is_better(value, progress.best_value):
                progress.best_step = progress.step
                progress.best_value = None if math.isnan(value) else value
                codec.save(self.folder.best)
                improved = True
        return self._any(improved)

    def _codec(self) -> Codec:
        """The model as it would ship, with what it learnt from."""
        codec = self.learner.codec()
        codec.losses = self.progress.losses
        return codec

    def _save(self) -> None:
        step, store = self.progress.step, self.folder.checkpoints
        if not self.learner.is_finite():
            self._say(f"step {step}: not saved: the weights are not finite; {self._intact()}")
            return
        store.write_rank(step, self.accelerator.process_index, self.learner.rank_state())
        self.accelerator.wait_for_everyone()
        if self.is_main:
            shared = {
                "version": _CHECKPOINT_VERSION,
                "learner": self.learner.state_dict(),
                "progress": vars(self.progress),
            }
            store.commit(step, shared)
            best = self.progress.best_step
            store.prune(protect=[] if best is None else [best])
            try:
                self._codec().save(self.folder.last)
            except ModelFileError as error:
                raise TrainingError(str(error)) from None
        self.accelerator.wait_for_everyone()

    def _load(self, step: int) -> None:
        shared, own = self.folder.checkpoints.read(step, self.accelerator.process_index)
        if shared.get("version") != _CHECKPOINT_VERSION:
            raise TrainingError(
                f"{self.folder.checkpoints.path(step)}: written by another version of Sotto; go on "
                f"with that one, or begin a new run with training.initial_model={self.folder.last}"
            )
        self.learner.load_state_dict(shared["learner"])
        best_by = self.progress.best_by
        self.progress = Progress.saved(shared["progress"], self.config.training.initial_model)
        if self.progress.best_by != best_by:  # another metric: its scores cannot be compared
            self.progress.best_by, self.progress.best_value = best_by, None
        if own is None:
            _, own = self.folder.checkpoints.read(step, 0)
        self.learner.load_rank_state(own)

    def _log(self, means: "Means", meter: "Meter") -> None:
        scalars = means.read() | self.learner.learning_rates()
        scalars |= meter.read()
        scalars["training/skipped_steps"] = float(self.progress.skipped)
        self._log_scalars(scalars)

    def _log_scalars(self, scalars: dict[str, float]) -> None:
        if self.monitor is not None:
            self.monitor.log_scalars(self.progress.step, scalars)

    def _log_codebooks(self) -> None:
        if self.monitor is not None:
            quantizer = self.learner.model.quantizer
            usage = quantizer.usage()
            self.monitor.log_codebooks(
                self.progress.step, [u.perplexity for u in usage], [u.used for u in usage]
            )
            dimensions = float(quantizer.dimensions_in_use())
            self._log_scalars({"codebooks/latent_dimensions": dimensions})

    def _announce(self) -> None:
        model = self.learner.model
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        begun = f", going on from step {self.progress.step}" if self.progress.step else ""
        if self.resumed and not begun:
            begun = ", no checkpoint yet: starting"
        if self.monitor is not None and not self.progress.step:
            text = (self.folder.path / "config.yaml").read_text(encoding="utf-8")
            self.monitor.log_text("config", f"```yaml\n{text}```")
        self._say(
            f"{self.folder.path}: {millions:.1f} M parameters on {self.accelerator.device}{begun}; "
            f"watch with: tensorboard --logdir {self.folder.path.parent}"
        )

    def _say(self, message: str) -> None:
        if self.monitor is not None:
            self.monitor.say(message)

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        """The first Ctrl-C or SIGTERM ends the run after this step, saved; the second at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._stop_asked:
                raise KeyboardInterrupt
            self._stop_asked = True

        stopping = (signal.SIGINT, signal.SIGTERM)
        earlier = {number: signal.signal(number, ask) for number in stopping}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
