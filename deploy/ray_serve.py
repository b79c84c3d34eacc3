"""The server of `terrazzo serve` as a Ray Serve application: replicas over the machines of a Ray cluster.

    pip install "ray[serve]" "terrazzo[deploy]"
    TERRAZZO_MODELS=/models/street TERRAZZO_TOKEN=... serve run deploy.ray_serve:app
    serve build deploy.ray_serve:app -o street.yaml      for `serve deploy street.yaml` on a cluster

Environment of the replicas:

    TERRAZZO_MODELS     models, as `terrazzo serve` takes them, separated by spaces; every machine must reach them
    TERRAZZO_TOKEN      what clients must send; needed, for Ray's proxy may listen where others reach it
    TERRAZZO_NAMES      host names by which clients call the server, separated by spaces; * for any
    TERRAZZO_PRECISION  f32 (the default), bf16 or f16

Every replica is a whole server behind Ray's proxy: the same routes, page, limits, 429 and metrics. Nothing is kept
between requests, so it does not matter which replica answers.
"""

import os

from ray import serve

REPLICAS = {
    "min_replicas": 1,
    "max_replicas": 8,
    "target_ongoing_requests": 8,
}  # grows while eight wait on each


def build_server():  # type: ignore[no-untyped-def]
    """Return one replica's ASGI application; called on the replica, where the models are loaded."""
    from terrazzo.serving import application

    return application(
        os.environ["TERRAZZO_MODELS"].split(),
        token=os.environ["TERRAZZO_TOKEN"],
        names=os.environ.get("TERRAZZO_NAMES", "").split(),
        precision=os.environ.get("TERRAZZO_PRECISION", "f32"),
    )


@serve.deployment(
    autoscaling_config=REPLICAS,
    max_ongoing_requests=64,  # above the server's own line of 32, so that its 429 is what clients hear
    graceful_shutdown_timeout_s=20,
    ray_actor_options={"num_cpus": 2},  # "num_gpus": 1 where the models run on GPUs
)
@serve.ingress(build_server)
class Terrazzo:
    """A replica."""


app = Terrazzo.bind()
