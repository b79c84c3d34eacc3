"""The whole loop in minutes on a CPU, on scenes drawn for it: a data set, its check, a training, scores, masks.

It shows that everything works on this machine and what each step looks like, with the commands one would type. What
the network learns is drawings: its score says nothing about photographs, and it is said so.
"""

import sys
import time
from os import PathLike
from pathlib import Path

from terrazzo.data import doctor, open_dataset
from terrazzo.data.scenes import scenes, write_scenes
from terrazzo.errors import DataError
from terrazzo.evaluation import evaluate
from terrazzo.images import write_image
from terrazzo.inference import load
from terrazzo.predicting import predict
from terrazzo.progress import duration
from terrazzo.recipe import load as load_recipe
from terrazzo.rendering import contact_sheet
from terrazzo.report import Report
from terrazzo.storage import refuse_existing, replacing
from terrazzo.training import train

TRAIN, VAL = 1000, 60  # scenes
SIZE_HW = (112, 144)  # what two cores see often enough in four minutes
SHOWN = 6  # held-out scenes in the picture
TO_LABEL, NEW_FIRST = (
    24,
    2_000_000,
)  # scenes without masks, and the index of the first: neither trained on nor scored


def quickstart(
    out: str | PathLike[str] = "quickstart", *, device: str = "auto", seed: int = 0
) -> Report | None:
    """Go round the loop in `out` (made here) and return the scores on held-out scenes; None when it was stopped.

    Leaves out/data (a data set), out/run (a run), out/predictions (masks, overlays, shares), out/pictures.png, and
    out/street, scenes that are still to be labelled.
    Raises ExistingOutputError when `out` holds something already.
    """
    out = Path(out)
    refuse_existing(out)
    began = time.monotonic()

    _say(1, f"Drawing {TRAIN + VAL} street scenes, {SIZE_HW[0]}x{SIZE_HW[1]}, each with its exact mask")
    data = write_scenes(out / "data", train=TRAIN, val=VAL, size_hw=SIZE_HW, seed=seed)

    _say(2, f"Checking them:  terrazzo check {data}")
    diagnosis = doctor.check(data)
    print(diagnosis.summary())
    if not diagnosis.ok:
        raise DataError("The scenes that were just drawn do not pass the check.", found=diagnosis.text())

    recipe = load_recipe("quickstart")
    _say(3, f"Training {recipe.model.name} from random weights:  terrazzo train quickstart --data {data}")
    run = train(recipe, data=data, out=out / "run", device=device, seed=seed)
    if run.stopped_by is not None:
        return None

    _say(4, f"Scoring it on {VAL} scenes it has never seen:  terrazzo evaluate {run.path} --data {data}")
    report = evaluate(run.path, data=data, device=device, quiet=True)
    print(report.table())

    _say(5, f"Predicting:  terrazzo predict {run.path} {data / 'val' / 'images'} --out {out / 'predictions'}")
    predictor, held_out = load(run.path, device=device), open_dataset(data)["val"]
    predict(predictor, data / "val" / "images", out=out / "predictions", quiet=True)
    shown = [held_out[number] for number in range(SHOWN)]
    pictures = [predictor(sample.image).beside(sample.mask) for sample in shown]
    with replacing(out / "pictures.png") as beside:
        contact_sheet(pictures, columns=2, cell=720).save(beside)

    for scene in scenes(TO_LABEL, seed=seed, size_hw=SIZE_HW, first=NEW_FIRST):
        write_image(out / "street" / f"{scene.name}.png", scene.image, durable=False)

    print(
        f"\nDone in {duration(time.monotonic() - began)}: {100 * report.miou:.1f} mIoU on scenes it has not seen."
    )
    print("These are drawings; the score says nothing about photographs.")
    print(f"  look at     {out / 'pictures.png'}   (image | truth | prediction)")
    print(f"  curves      tensorboard --logdir {run.path}")
    print(
        f"  label       terrazzo label {out / 'street'} --model {run.path}   ({TO_LABEL} new scenes, pre-labelled)"
    )
    print("\nYour own images: put them into my-data/train/images and their masks (PNG, class ids) into")
    print("my-data/train/masks, the classes' names into my-data/classes.txt, one a line. Then:")
    print("  terrazzo check my-data")
    print("  terrazzo train segformer-b0 --data my-data --overfit 4     a handful first: finds most mistakes")
    print("  terrazzo train segformer-b0 --data my-data --out runs/mine")
    print("  terrazzo predict runs/mine PHOTOS --out predictions")
    return report


def _say(number: int, what: str) -> None:
    print(f"\n[{number}/5] {what}")
    sys.stdout.flush()
