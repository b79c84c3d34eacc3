"""What test_processes.py runs in several processes: python ranks.py DATA, and on standard input FOLDER WORLD:CASE …

Everything is imported once; every case is then forked into WORLD processes that find each other as under a launcher.
Each writes what it says to FOLDER/CASE-WORLD.RANK.err and its exit code to FOLDER/codes.json; a line answers when all
cases of a line have ended.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import terrazzo as tz
import terrazzo.training
from terrazzo import pulse
from terrazzo.cli import main as terrazzo
from terrazzo.cli import notes_of
from terrazzo.data.loader import Loader
from terrazzo.errors import TerrazzoError
from terrazzo.evaluation import measure
from terrazzo.inference import Predictor
from terrazzo.nn.segformer import SegFormer, Size
from terrazzo.processes import joined
from terrazzo.run import Run

# of what is heavy, what importing the above has brought
EARLY = sorted({"torch.distributed.fsdp", "torch.distributed.tensor", "sympy"} & set(sys.modules))
RANK, WORLD = 0, 1
SETTINGS = (
    "train.batch_size=4",
    "train.log_every=1",
    "train.save_every=1000",
    "train.precision=f32",
    "train.pictures=0",
    "train.loggers=",
    "optim.warmup_steps=2",
    "data.crop_hw=32x48",
    "data.workers=0",
    "eval.every=1000",
)
SGD = ("optim.kind=sgd", "optim.lr=0.02", "train.ema=0.9")
TERMS = ("loss.class_weights=sqrt_inverse", "loss.dice=0.5", "loss.lovasz=0.3", "loss.boundary=0.5")
RARE = ("data.rare_images=1", "data.rare_crops=0.5")
LONG = (
    "train.steps=50",
    "train.save_every=10",
    "train.keep=9",
    "train.sync_batch_norm=true",
    *SGD,
    *TERMS,
    *RARE,
)
SPREAD = ("train.shard=fsdp", "train.gradient_checkpointing=true", "train.save_every=10", "eval.every=5")


class Small(SegFormer):
    """A SegFormer with few weights, no dropout and no drop path."""

    def __init__(self, seed: int = 7) -> None:
        torch.manual_seed(seed)
        size = Size((1, 1, 1, 1), (8, 8, 16, 16), 16, num_heads=(1, 1, 2, 2))
        super().__init__(size, 3, mean=(0.5,) * 3, std=(0.2,) * 3, dropout=0.0, drop_path=0.0)


class Frozen(Small):
    """The same with batch norm that stays as it is."""

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.decode_head.batch_norm.eval()
        return self


def train(case: str, folder: Path, data: Path, *overrides: str, network: nn.Module, **own: object) -> Run:
    chosen = dict(item.split("=", 1) for item in (*SETTINGS, *overrides))
    return tz.train(
        "segformer-b0-scratch", data=data, out=folder / f"{case}-{WORLD}", device="cpu", network=network,
        overrides=[f"{name}={value}" for name, value in chosen.items()], **own,
    )  # fmt: skip


def sgd(folder: Path, data: Path) -> None:
    """With terms over pixels and over images, and rare classes drawn more often."""
    train("sgd", folder, data, *LONG, network=Small(7 + RANK))  # other random weights: rank 0's are taken


def streamed(folder: Path, data: Path) -> None:
    """The same images as parquet, of which each process reads row groups of its own."""
    more = (
        "train.steps=8",
        "train.sync_batch_norm=true",
        "data.stream=true",
        "data.shuffle_buffer=4",
        "eval.every=4",
    )
    train("streamed", folder, folder.parent / "shards", *SGD, *more, network=Small())


def adamw(folder: Path, data: Path) -> None:
    train("adamw", folder, data, "train.steps=50", "train.sync_batch_norm=true", network=Small())


def whole(folder: Path, data: Path) -> None:
    train("whole", folder, data, *SGD, "train.steps=15", network=Frozen())


def parts(folder: Path, data: Path) -> None:
    train("parts", folder, data, *SGD, "train.steps=15", "train.micro_batch=1", network=Frozen())


def sharded(folder: Path, data: Path) -> None:
    more = ("train.steps=50", "train.sync_batch_norm=true", "train.shard=fsdp", "eval.every=25")
    train("sharded", folder, data, *more, network=Small(7 + RANK))


def spread(folder: Path, data: Path) -> None:
    train("spread", folder, data, *SGD, *SPREAD, "train.steps=15", "train.micro_batch=1", network=Frozen())


def onward(folder: Path, data: Path) -> None:
    """A run goes on from step 10: spread over two processes where one held it whole, and the other way round."""
    words = ["train.shard=fsdp"] if WORLD > 1 else ["train.shard=none", "train.micro_batch=0"]
    tz.train(resume=folder / f"onward-{WORLD}", device="cpu", network=Frozen(), overrides=words)


def theirs(folder: Path, data: Path) -> None:
    """A network of transformers, as it is."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_labels=3, depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16,
        num_attention_heads=[1, 1, 2, 2], drop_path_rate=0.0, classifier_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(7)
    shard = f"train.shard={'fsdp' if WORLD > 1 else 'none'}"
    more = (*SGD, "train.steps=6", "train.sync_batch_norm=true", shard)
    train("theirs", folder, data, *more, network=SegformerForSemanticSegmentation(config))


class Idle(Frozen):
    """A network with a parameter that no logit depends on, as some of transformers' have."""

    uses_all_parameters = False

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(3))


def idle(folder: Path, data: Path) -> None:
    """Not every parameter gets a gradient, in any of two micro-batches."""
    more = (*SGD, "train.steps=4", "train.micro_batch=1")
    train("idle", folder, data, *more, network=Idle())


def slurm(folder: Path, data: Path) -> None:
    """As srun starts it: nothing but Slurm's variables says which of two processes this is."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    os.environ |= {"SLURM_PROCID": str(RANK), "SLURM_LOCALID": str(RANK), "SLURM_STEP_NUM_TASKS": str(WORLD),
                   "SLURM_STEP_ID": "0", "SLURM_JOB_ID": str(os.getppid()),
                   "SLURM_STEP_NODELIST": "localhost"}  # fmt: skip
    words = [
        "train",
        "segformer-b0-scratch",
        "--data",
        str(data),
        "--out",
        str(folder / "slurm"),
        "--device",
        "cpu",
    ]
    leave(terrazzo([*words, *SETTINGS, "train.steps=3"]))


def plain(folder: Path, data: Path) -> None:
    """Batch norm that is not synchronised: every process has statistics of its own, until they are kept."""
    network = Small()
    train("plain", folder, data, *SGD, "train.steps=6", network=network)
    torch.save(network.decode_head.batch_norm.state_dict(), folder / f"plain-{RANK}.pt")


def resumed(folder: Path, data: Path) -> None:
    """plain-2 goes on in another number of processes; the samples of each step are noted."""
    names = Loader.micro_batches

    def noted(self: Loader, step: int):
        with (folder / f"order-{WORLD}.jsonl").open("a") as lines:
            lines.write(json.dumps([step, self.sample_indices(step)]) + "\n")
        return names(self, step)

    Loader.micro_batches = noted  # type: ignore[method-assign]
    run = folder / "to-resume"
    state = json.loads((run / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert state["processes"] == 2
    opened = json.loads((run / "recipe.json").read_text())
    opened["train"]["steps"] = 10
    (run / "recipe.json").write_text(json.dumps(opened))
    tz.train(resume=run, device="cpu", network=Small())


def score(folder: Path, data: Path) -> None:
    """The counts of 101 images, as validation takes them."""
    torch.manual_seed(3)
    dataset = tz.open_dataset(folder.parent / "many")
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    with joined("cpu") as processes:
        report = measure(
            Predictor(network, dataset.classes, device="cpu"), dataset["val"],
            rank=processes.rank, world=processes.world, reduce=processes.sum,
            metrics={"share": lambda pred, truth: float((pred == truth).mean())},
        )  # fmt: skip
    assert report.num_images == 101
    found = {"counts": report.counts.tolist(), "share": report.metrics["share"]}
    (folder / f"score-{WORLD}.{RANK}.json").write_text(json.dumps(found))


def scaler(folder: Path, data: Path) -> None:
    """An overflow in one process makes all of them skip the step and lower the scale."""
    network = nn.Linear(4, 1)
    with joined("cpu") as processes:
        model = processes.wrap(network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        scale = torch.amp.GradScaler("cpu", init_scale=1024.0)
        before = network.weight.detach().clone()
        for step in range(2):
            x = torch.full((1, 4), float("inf") if step == 0 and RANK == 1 else float(RANK + 1))
            scale.scale(model(x).sum()).backward()
            scale.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            scale.step(optimizer)
            scale.update()
            optimizer.zero_grad()
            if step == 0:
                assert torch.equal(network.weight, before)
        assert scale.get_scale() == 512.0
        seen = torch.cat([network.weight.detach().flatten(), norm.reshape(1)])
        assert torch.equal(processes.sum(seen), 2 * seen)


def killed(folder: Path, data: Path) -> None:
    """Process 1 is killed in its third step."""
    pulse.FAREWELL = 0.2
    case(killed_in_step(2, signal.SIGKILL), folder, data, "killed")


def silent(folder: Path, data: Path) -> None:
    """Process 1 stops answering without closing anything, as a machine that loses its power."""
    pulse.BEAT, pulse.SILENCE, pulse.GRACE, pulse.FAREWELL = 0.2, 2.0, 0.5, 0.2
    case(killed_in_step(2, signal.SIGSTOP), folder, data, "silent")


def broken(folder: Path, data: Path) -> None:
    """A sample of process 1's share cannot be read."""

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        if RANK == 1:
            raise TerrazzoError("The loss of process 1 will not be computed.")
        return logits.square().mean()

    case(Small(), folder, data, "broken", loss=loss)


def stumbles(folder: Path, data: Path) -> None:
    """Process 1 fails in its eleventh step, when the statistics of batch norm have moved already."""
    case(failing_in_step(10, TerrazzoError("Process 1 stumbles.")), folder, data, "stumbles", *LONG)


def starved(folder: Path, data: Path) -> None:
    """Both have no memory left in their third step."""
    error = torch.OutOfMemoryError("out of memory, so to speak")
    case(failing_in_step(2, error, ranks=(0, 1)), folder, data, "starved")


def alone(folder: Path, data: Path) -> None:
    """A process fails where no process holds everything."""
    more = ("train.shard=fsdp", "train.save_every=2")
    case(failing_in_step(3, TerrazzoError("Process 1 stumbles.")), folder, data, "alone", *more)


def judged(folder: Path, data: Path) -> None:
    """The metric of process 1 fails in the first validation."""

    def metric(pred: object, truth: object) -> float:
        if RANK == 1:
            raise TerrazzoError("Process 1 cannot judge.")
        return 0.0

    case(Small(), folder, data, "judged", "eval.every=2", metrics={"mine": metric})


def taken(folder: Path, data: Path) -> None:
    """The run folder cannot be made: process 0 alone finds out."""
    (folder / "taken").mkdir(exist_ok=True)
    (folder / "taken" / "thesis.tex").write_text("mine")
    leave(terrazzo(["train", "segformer-b0-scratch", "--data", str(data), "--out", str(folder / "taken")]))


def elsewhere(folder: Path, data: Path) -> None:
    """The data set is not there for process 1."""
    os.chdir(data.parent if RANK == 0 else folder)
    leave(
        terrazzo(["train", "segformer-b0-scratch", "--data", data.name, "--out", str(folder / "elsewhere")])
    )


def killed_in_step(number: int, by: int) -> nn.Module:
    class Mortal(Small):
        steps = 0

        def forward(self, image_BCHW: Tensor) -> object:  # type: ignore[override]
            self.steps += 1
            if RANK == 1 and self.steps > number:
                os.kill(os.getpid(), by)
            return super().forward(image_BCHW)

    return Mortal()


def failing_in_step(number: int, error: Exception, ranks: tuple[int, ...] = (1,)) -> nn.Module:
    class Failing(Small):
        steps = 0

        def forward(self, image_BCHW: Tensor) -> object:  # type: ignore[override]
            output = super().forward(image_BCHW)
            self.steps += 1
            if RANK in ranks and self.steps == number + 1:
                raise error
            return output

    return Failing()


def case(network: nn.Module, folder: Path, data: Path, name: str, *overrides: str, **own: object) -> None:
    """Train as the command line does: errors are told once, and are exit codes."""
    try:
        train(name, folder, data, "train.steps=4", *overrides, network=network, **own)
    except TerrazzoError as error:
        if not error.is_told:
            print(f"{type(error).__name__}: {error}", *notes_of(error), sep="\n", file=sys.stderr)
        leave(error.exit_code)


def leave(code: int) -> None:
    sys.stderr.flush()
    os._exit(code)


def whole_pool() -> None:
    """Give a forked process its own pool of torch's, while it has one thread: two that ask first find none."""
    torch.set_num_threads(torch.get_num_threads())


def fork(world: int, name: str, folder: Path, data: Path) -> list[int]:
    """Run a case in `world` processes; return their exit codes."""
    global RANK, WORLD
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if name == "theirs":
        import transformers.models.segformer.modeling_segformer  # noqa: F401  (once)
    children = []
    for rank in range(world):
        child = os.fork()
        if child:
            children.append(child)
            continue
        RANK, WORLD = rank, world
        whole_pool()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                       "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
        said = os.open(folder / f"{name}-{world}.{rank}.err", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the answer to a line is for the parent to give
        try:
            globals()[name](folder, data)
        except BaseException:
            import traceback

            traceback.print_exc()
            leave(70)
        leave(0)
    codes = {}
    first, status = os.wait()
    codes[first] = status
    for child in children:
        if child not in codes:
            if name == "silent" and child == children[1]:
                os.kill(child, signal.SIGKILL)
            codes[child] = os.waitpid(child, 0)[1]
    return [os.waitstatus_to_exitcode(codes[child]) for child in children]


def warm_up(data: Path) -> None:
    """Import and compile what a training does only on its way: torch's optimisers, numba, our kernels.

    No backward: where there is a GPU it starts threads, and forks go wrong.
    """
    import torch._dynamo
    import torch.distributed.fsdp
    import torch.utils.tensorboard

    from terrazzo.data.counts import class_pixels
    from terrazzo.nn.losses import SegmentationLoss
    from terrazzo.recipe import load

    dataset = tz.open_dataset(data)
    class_pixels(dataset["train"], 3, ignore=255)
    network, overrides = Small(), [*TERMS, "train.steps=1"]
    measure(Predictor(network.eval(), dataset.classes, device="cpu"), dataset["val"])
    image, mask = torch.rand(1, 3, 32, 48), torch.zeros(1, 32, 48, dtype=torch.int64)
    SegmentationLoss(load("segformer-b0-scratch", overrides).loss, None, 255)(
        network(image), mask, weight=1.0
    )


def serve(data: Path) -> None:
    """Do the cases of each line; say when they have ended."""
    for line in sys.stdin:
        folder, *words = line.split()
        signal.alarm(500)  # whatever hangs
        told = {}
        for word in words:
            count, _, called = word.partition(":")
            told[f"{called}-{count}"] = fork(int(count), called, Path(folder), data)
        (Path(folder) / "codes.json").write_text(json.dumps(told))
        signal.alarm(0)
        print("done", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(EARLY), flush=True)
    warm_up(Path(sys.argv[1]))
    serve(Path(sys.argv[1]))
