"""What is said when training cannot go on, from what was measured: which step, which images, where it began."""

import math
import shlex
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from terrazzo import memory
from terrazzo.data.cache import free_memory
from terrazzo.data.loader import Loader, can_reduce, cores, default_threads
from terrazzo.data.transforms import resized_hw, typical_shrink
from terrazzo.devices import autocast, choose_precision
from terrazzo.errors import MemoryShortageError, NonFiniteLossError, TerrazzoError, TrainingError, quoted
from terrazzo.kernels.resize_cross_entropy import refuse_wrong_ids
from terrazzo.meter import Meter, Reading
from terrazzo.nn.outputs import as_output
from terrazzo.optim import Schedule
from terrazzo.preparation import Job
from terrazzo.processes import Processes
from terrazzo.progress import duration
from terrazzo.reduced import DIVISORS

FALL_STEPS = 200  # after which a loss is judged, or after
FALL_SHARE = 0.2  # of the training, whichever is later
FALLEN = 0.95  # times the loss at the beginning: below, it has fallen
WAITING = 0.1  # share of a step spent waiting for data, above which that is said
WORTH_A_LINE = 60.0  # seconds of waiting that are ahead
GOOD = 0.5  # times ln K, the cross-entropy of knowing nothing: below, it had fallen before, such as with model.init


def stop_if_not_finite(
    model: nn.Module, meter: Meter, job: Job, processes: Processes, loader: Loader, schedule: Schedule
) -> None:
    """Raise NonFiniteLossError if a loss since the last call was NaN or infinite; every process raises together.

    Names the step (within the interval of steps that were looked at together), its images, the learning rate,
    the loss parts and the first layer whose result is not finite. Raises MaskValueError instead where this process's
    masks of that step hold ids outside the classes.
    """
    every = meter.num_unchecked
    bad = meter.first_bad_step(processes)
    if bad is None:
        return
    step, losses = bad
    network = job.network
    for _, mask_BHW in loader.micro_batches(step):  # on a GPU ids outside the classes are seen no sooner
        refuse_wrong_ids(mask_BHW, len(job.data.classes), job.data.classes.ignore)

    def forward() -> None:
        for image_BCHW, _ in loader.micro_batches(step):
            network(image_BCHW.to(processes.device))

    with processes.gathered(model):
        layer = first_bad_layer(network, forward)
    names = loader.names(step)
    parts = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    shown = ", ".join(names[:8]) + (f", … {len(names)} in all" if len(names) > 8 else "")
    first = f"; first layer with such a result: {layer}" if layer else ""
    saved, lr = job.run.step, schedule.get_last_lr()[0]
    raise NonFiniteLossError(
        f"The loss is no longer a number at step {step + 1}, seen within {every} step{'' if every == 1 else 's'} "
        f"(learning rate {lr:.3g}).",
        found=f"{', '.join(parts) or 'not finite in another process'}{first}\nbatch: {shown}",
        hint=f"The run keeps {f'its checkpoint of step {saved}' if saved else 'no checkpoint; none was due yet'}. "
        "The usual cause is a learning rate that is\ntoo high; then NaN in an image of that batch, or f16 where f32 is "
        "needed. To try a third of the rate:",
        command=f"terrazzo train {job.recipe.name} --data {quoted(job.run.data['source'])} optim.lr={lr / 3:.1g}",
    )


def first_bad_layer(network: nn.Module, forward: Callable[[], object]) -> str | None:
    """Return the name of the first module whose output is not finite when `forward()` runs, or None.

    Weights that are not finite themselves are named before any output.
    """
    for name, parameter in network.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"{name} (its weights)"
    found: list[str] = []

    def hook_for(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return look

    handles = [
        module.register_forward_hook(hook_for(name))
        for name, module in network.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def did_not_overfit(*, images: int, steps: int, miou: float, loss: float, target: float) -> TrainingError:
    """Build the error for a network that cannot memorise a handful of images."""
    return TrainingError(
        f"Something is wrong: {images} image{'' if images == 1 else 's'} could not be memorised in {steps} steps.",
        found=f"mIoU {miou:.3f} on the very images it was trained on, loss {loss:.4f}",
        expected=f"mIoU of at least {target}",
        hint="Do the masks belong to their images (look at pictures/ in the run)? Is the loss one that falls when the\n"
        "prediction gets better? Is the learning rate far off? The data set can be checked with:",
        command="terrazzo check DATA",
    )


@contextmanager
def told_out_of_memory(job: Job, processes: Processes) -> Iterator[None]:
    """Raise a TrainingError where what is inside runs out of memory: what to change, and what each change would hold.

    By then the failed step's tensors, gradients and optimiser state are let go, so there is room to measure.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError, TerrazzoError) as error:
        shortage = error.__cause__ if isinstance(error, TerrazzoError) else error  # of a pass in validation
        if shortage is None or not memory.is_out_of_memory(shortage):
            raise
        said = (str(shortage).strip() or type(shortage).__name__).splitlines()[0]
        for one in (error, shortage):
            traceback.clear_frames(one.__traceback__)  # they hold the activations
    job.network.zero_grad(set_to_none=True)
    if processes.device.type == "cuda":
        torch.cuda.empty_cache()
    raise (_out_of_memory_looking if job.is_looking else _out_of_memory_training)(job, processes, said)


def _out_of_memory_training(job: Job, processes: Processes, said: str) -> MemoryShortageError:
    recipe, device = job.recipe, processes.device
    share = recipe.train.batch_size // processes.world
    setting = memory.Setting(
        recipe.train.micro_batch or share,
        recipe.data.crop_hw if recipe.data.augment else _largest_hw(job),
        recipe.train.gradient_checkpointing,
        choose_precision(recipe.train.precision, device),
    )
    choices = memory.options(
        setting,
        share=share,
        can_checkpoint=hasattr(job.network, "gradient_checkpointing"),
        is_cropped=recipe.data.augment,
    )
    needs_others = processes.world > 1 and (job.is_sharded or recipe.train.sync_batch_norm)
    measure = _not_measured if needs_others else _measured
    held = measure(job, device, setting)
    measured = [(measure(job, device, option.setting), option) for option in choices]
    measured.sort(key=lambda pair: math.inf if pair[0] is None else pair[0])
    lines = [f"{memory.mib(count) if count is not None else 'not measurable':>14}  {option.override}: {option.effect}"
             for count, option in measured]  # fmt: skip
    numbers = (
        1 + {"adamw": 2}.get(recipe.optim.kind, 1) + bool(recipe.train.ema)
    )  # gradient, optimiser, average
    holders = processes.world if job.is_sharded else 1
    state = memory.mib(memory.state_bytes(job.network, per_weight=numbers) // holders)
    activations = "could not be measured" if held is None else memory.mib(held)
    free = [option.override for _, option in measured if option.effect.startswith("the same result")]
    if free:
        advice, command = (
            "What leaves the result the same can change in the middle of a run:",
            _resumed(job, free[0]),
        )
    elif measured:
        advice, command = "That is another training, which starts anew:", _anew(job, measured[0][1].override)
    else:
        advice, command = (
            "Nothing of that is left to change; a smaller network needs less:",
            "terrazzo models",
        )
    return MemoryShortageError(
        f"{device} ran out of memory at step {job.reached + 1} of {job.steps}.",
        found=f"{said}\n{setting}: activations {activations}, beside weights, gradients and optimiser state {state}",
        hint="\n".join(
            [
                "Activations of a step as measured just now, after one change at a time, the least first:",
                *lines,
                *(
                    ["Decoded samples are kept in memory as well, unless data.cache=none."]
                    if device.type == "cpu"
                    else []
                ),
                f"{kept(job)} {advice}",
            ]
        ),
        command=command,
    )


def _out_of_memory_looking(job: Job, processes: Processes, said: str) -> TrainingError:
    """Validation keeps no activations: there it is the size of what is looked at that counts."""
    look = job.recipe.eval
    is_whole = look.inference == "whole"
    height, width = job.recipe.data.crop_hw if is_whole else (max(32, side // 2) for side in look.window_hw)
    words = [f"model.init={job.run.path}", "eval.inference=windows", "eval.batch_size=1"]
    words += [f"eval.window_hw={height}x{width}", f"eval.stride_hw={height * 3 // 4}x{width * 3 // 4}"]
    seen = "images are looked at whole" if is_whole else "windows of {}x{}".format(*look.window_hw)
    return TrainingError(
        f"{processes.device} ran out of memory in the validation after step {job.reached} of {job.steps}.",
        found=f"{said}\n{seen}, {look.batch_size} at a time",
        hint=f"{kept(job)} Smaller windows need less. A run validates in one way from first to last; a new one\n"
        "starts from these weights:",
        command=_anew(job, *words),
    )


def _measured(job: Job, device: torch.device, setting: memory.Setting) -> int | None:
    """The bytes of a setting, or None where even measuring fails."""

    def loss_of(image_BCHW: Tensor, mask_BHW: Tensor, precision: Any) -> Tensor:
        with autocast(precision, device):
            output = as_output(job.network(image_BCHW))
        return torch.stack(list(job.loss(output, mask_BHW, weight=1.0).values())).sum()

    try:
        return memory.activation_bytes(
            job.network, loss_of, setting, channels=job.data.channels, device=device
        )
    except Exception:  # a second failure must not hide the first
        return None


def _not_measured(job: Job, device: torch.device, setting: memory.Setting) -> None:
    """Where weights or batch norm take all processes, no pass goes through in one; the others wait elsewhere."""


def _largest_hw(job: Job) -> tuple[int, int]:
    """The largest size that training sees where it does not crop, of up to 100 images."""
    few = range(min(len(job.train_split), 100))
    sizes = [resized_hw(job.train_split.size_hw(index), job.recipe.data) for index in few]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def kept(job: Job) -> str:
    """Return the sentence about what a training that ends now leaves behind."""
    step = job.run.step
    return f"The run keeps {f'its checkpoint of step {step}' if step else 'no checkpoint; none was due yet'}."


def _resumed(job: Job, *words: str) -> str:
    return shlex.join(["terrazzo", "train", "--resume", str(job.run.path), *words])


def _anew(job: Job, *words: str) -> str:
    """The command that starts such a training again: its own recipe, overrides included, its data and fold."""
    fold = (job.data.split_manifest or {}).get("fold")
    named = ["--fold", "{}/{}".format(*fold)] if fold else []
    source = str(job.run.data["source"])
    return shlex.join(
        ["terrazzo", "train", str(job.run.path / "recipe.json"), "--data", source, *named, *words]
    )


def not_falling(history: Sequence[Mapping[str, Any]], job: Job, done: int) -> str | None:
    """Return one line where the loss has not fallen by now, for `history`, the log lines of training so far.

    To be asked once, at the first log line after 200 steps or a fifth of training, whichever is later; the mean of the
    last quarter of the lines is compared with the first quarter's. Nothing is said of fewer than four lines, of a
    cross-entropy that is below half of ln K, the value of knowing nothing, and while a handful is being memorised.
    """
    losses = [float(entry["loss"]) for entry in history if entry.get("loss") is not None]
    if job.overfit or len(losses) < 4:
        return None
    quarter = len(losses) // 4
    first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
    entropy = history[-1].get("cross_entropy")
    is_good = entropy is not None and entropy < GOOD * math.log(len(job.data.classes))
    if is_good or not last > FALLEN * first:
        return None
    return (
        f"the loss has not fallen in {done} steps ({first:.4f} at first, {last:.4f} of late). A network that learns at "
        f"all can memorise a handful; try that first: {_anew(job, '--overfit', '4')}"
    )


def waiting_for_data(reading: Reading, job: Job, done: int) -> str | None:
    """Return one line where waiting for data takes a tenth of the time, and minutes: what to change, cheapest first."""
    share, left = reading.waited / max(reading.seconds, 1e-9), reading.waited * (job.steps - done)
    if job.overfit or share <= WAITING or left < WORTH_A_LINE:
        return None
    data = job.recipe.data
    threads = default_threads() if data.workers < 0 else data.workers
    ways = [f"data.workers={2 * max(threads, 1)}"] if threads < cores() else []
    if not data.stream and not data.scaled_decoding and data.cache != "memory":
        height, width = job.train_split.size_hw(0)
        room = len(job.train_split) * height * width * (job.data.channels + 1)  # uint8 image and mask
        if room < free_memory() // 2:
            ways.append(f"data.cache=memory (about {memory.mib(room)})")
        else:
            ways.append(f"data.cache=disk (about {memory.mib(room)}, decoded once)")
    if _would_scale(job):
        ways.append("in a new run data.scaled_decoding=true (JPEGs are decoded no finer than crops need)")
    advice = f"try {', or '.join(ways)}" if ways else "a faster disk, or smaller files, would help"
    return (
        f"{100 * share:.0f} % of a step is spent waiting for data, {duration(left)} until the end: {advice}"
    )


def _would_scale(job: Job) -> bool:
    """True where images are JPEGs that lie here, twice as fine as crops need and more, and decoded whole."""
    data, split = job.recipe.data, job.train_split
    if data.scaled_decoding or data.stream:
        return False
    return typical_shrink(split.size_hw(0), data) >= DIVISORS[-1] and can_reduce(split)


def judges_fall(done: int, steps: int) -> bool:
    """True once the loss should have begun to fall: after 200 steps or a fifth of training, whichever is later."""
    return done >= max(FALL_STEPS, FALL_SHARE * steps)
