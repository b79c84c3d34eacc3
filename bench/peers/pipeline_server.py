"""A plain server of today: FastAPI around transformers' image-segmentation pipeline, JPEG in, class-map PNG out.

    python bench/peers/pipeline_server.py MODEL --port 8001 [--precision f32|bf16] [--async]

It knows nothing of terrazzo. `def` lets FastAPI call the pipeline from a pool of threads, as many at once as ask; with
--async it is called in the event loop, one after the other. The pipeline gives a mask for each class; they are put
together into one map, as whoever wants a class map from it must.
"""

import argparse
import io

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image
from transformers import pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--async", dest="is_async", action="store_true")
    args = parser.parse_args()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    segment = pipeline("image-segmentation", model=args.model, dtype=dtype)
    label2id = segment.model.config.label2id
    app = FastAPI()

    def predict(data: bytes) -> Response:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        class_map = np.zeros((image.height, image.width), np.uint8)
        for one in segment(image):
            class_map[np.asarray(one["mask"]) > 0] = label2id[one["label"]]
        file = io.BytesIO()
        Image.fromarray(class_map).save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    async def body(request: Request) -> bytes:
        return await request.body()

    if args.is_async:

        @app.post("/predict")
        async def predict_in_the_loop(request: Request) -> Response:
            return predict(await request.body())

    else:
        from fastapi import Depends

        read = Depends(body)

        @app.post("/predict")
        def predict_in_threads(data: bytes = read) -> Response:
            return predict(data)

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ready"}

    uvicorn.run(app, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
