"""SWAG: the zoo, and a plain PyTorch loop of the same steps.

    python -m tests.benchmarks.swag [--rounds 5] [--short] [--cores 2]

1×50 ReLU on 500 rows of 8 features, float32, noise and prior fixed as in `members`: 2,000 steps of Adam with a cosine,
4,000 of SGD with momentum 0.9 on batches of 50, its iterates collected once an epoch, running moments and the last 20
deviations of them; then 1,000 draws of the Gaussian. PyTorch indexes tensors in memory, with no DataLoader, has fused
optimisers and one thread, its fastest here; the learning rate is the one that the zoo finds from the curvature.

Cold is the first call of a process, compilation included, nothing taken from disk, and imports not; warm another, with
another seed. Sides are interleaved, in processes of their own. Printed as well: ``-log p(z, y) / n`` of the mean, and
the mean sd of a weight, which show that the two do the same. They are of two seeds, and networks end in different
minima: over six seeds, losses of 0.53 to 0.72 (zoo) and 0.43 to 0.66 (PyTorch), sds of 0.009 to 0.011 and 0.007 to
0.013.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.cold import data
from tests.benchmarks.members import NOISE, PRIOR_SD, WIDTH, minus_log_posterior
from tests.benchmarks.rows import Row, command, parser

SIDES = ("zoo", "torch")
WARM, STEPS, BATCH, EVERY, RANK, DRAWS, RATE = 2000, 4000, 50, 10, 20, 1000, 0.01
Found = tuple[float, float]
Judge = Callable[[], Found]  # what was found, worked out where no clock runs


def zoo(share: float, seed: int) -> Judge:
    """Fit, and return what tells the loss of the mean, and the mean sd of a weight."""
    import bnn_zoo as zoo

    x, y = data()
    model = zoo.models.MLP(hidden=(WIDTH,), weight_scale=PRIOR_SD, bias_scale=PRIOR_SD, fan_in=False, noise=NOISE)
    method = zoo.methods.SWAG(
        warm_steps=round(share * WARM),
        num_steps=round(share * STEPS),
        warm_learning_rate=RATE,
        batch_size=BATCH,
        collect_every=EVERY,
        rank=RANK,
        num_samples=DRAWS,
    )
    posterior = zoo.fit(model, method, (x, y), seed=seed, standardize=False, progress=False)

    def judge() -> Found:
        mean, z = posterior.result.info["mean"][0], posterior.result.positions[0]
        f = np.asarray(posterior.problem.likelihood(mean, posterior.problem.x).location, float)
        return minus_log_posterior(f, y, np.asarray(mean, float)), float(z.std(0).mean())

    return judge


def torch_side(rate: float) -> Callable[[float, int], Judge]:
    """Maddox (2019), algorithm 1, at a learning rate of the loss per row."""

    def run(share: float, seed: int) -> Judge:
        import torch
        from torch import nn
        from torch.nn.utils import parameters_to_vector, vector_to_parameters

        torch.manual_seed(seed)
        x, y = (torch.tensor(a, dtype=torch.float32) for a in data())
        net = nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        for p in net.parameters():
            nn.init.normal_(p, std=PRIOR_SD)
        decay = PRIOR_SD**-2 / len(x)

        def epoch(optimizer: torch.optim.Optimizer) -> None:
            for rows in torch.randperm(len(x)).split(BATCH):
                loss = nn.functional.mse_loss(net(x[rows])[:, 0], y[rows]) / (2 * NOISE**2)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        epochs = round(share * WARM * BATCH / len(x))
        adam = torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=decay, fused=True)
        for i in range(epochs):
            adam.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * i / epochs))
            epoch(adam)
        sgd = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=decay, fused=True)
        mean = torch.zeros(sum(p.numel() for p in net.parameters()))
        square, deviations, taken = torch.zeros_like(mean), [], 0
        with torch.no_grad():
            for _ in range(round(share * STEPS * BATCH / len(x))):
                with torch.enable_grad():
                    epoch(sgd)
                z = parameters_to_vector(net.parameters())
                mean, square = (mean * taken + z) / (taken + 1), (square * taken + z**2) / (taken + 1)
                taken, deviations = taken + 1, [*deviations[1 - RANK :], z - mean]
            diagonal = (0.5 * (square - mean**2).clamp(min=1e-30)).sqrt()
            low = torch.stack(deviations) / math.sqrt(2 * (len(deviations) - 1))
            draws = mean + diagonal * torch.randn(DRAWS, len(mean)) + torch.randn(DRAWS, len(low)) @ low

        def judge() -> Found:
            with torch.no_grad():
                vector_to_parameters(mean, net.parameters())
                f = net(x)[:, 0].double().numpy()
            return minus_log_posterior(f, y.double().numpy(), mean.double().numpy()), float(draws.std(0).mean())

        return judge

    return run


def learning_rate() -> float:
    """The one that the zoo finds."""
    import bnn_zoo as zoo

    model = zoo.models.MLP(hidden=(WIDTH,), weight_scale=PRIOR_SD, bias_scale=PRIOR_SD, fan_in=False, noise=NOISE)
    method = zoo.methods.SWAG(warm_steps=WARM, num_steps=40, collect_every=1, rank=2, batch_size=BATCH)
    posterior = zoo.fit(model, method, data(), standardize=False, progress=False)
    return float(posterior.result.info["learning_rate"][0])


def one(side: str, share: float, rate: float) -> sides.Run:
    """Twice in this process."""
    if side == "zoo":
        import jax

        import bnn_zoo  # noqa: F401

        jax.devices()
        train = zoo
    else:
        import torch

        torch.set_num_threads(1)
        train = torch_side(rate)
    judges: list[Judge] = []
    first, second = (sides.timed(lambda seed=seed: judges.append(train(share, seed))) for seed in (0, 1))
    loss, sd = np.mean([judge() for judge in judges], axis=0)
    return {"first": first, "second": second, "loss": float(loss), "sd": float(sd)}


def measure(rounds: int, short: bool) -> list[Row]:
    """Interleave the sides."""
    peer = sides.installed("torch")
    settings = ("--share", "0.1" if short else "1", "--rate", str(learning_rate()))
    found = sides.interleaved("tests.benchmarks.swag", SIDES if peer else SIDES[:1], rounds, *settings)
    for side, runs in found.items():
        print(
            f"{side}: loss of the mean {sides.median(runs, 'loss'):.3f}, sd of a weight {sides.median(runs, 'sd'):.4f}"
        )
    if not peer:
        return []
    return [
        Row("SWAG", "PyTorch loop", state, "s", *(sides.each(found[s], call) for s in SIDES), asked=asked)
        for state, call, asked in (("warm", "second", 12), ("cold", "first", None))
    ]


def main() -> None:
    """Run one side, or both in turn."""
    asks = parser(__doc__, 5)
    asks.add_argument("--cores", type=int, default=sides.cores())
    asks.add_argument("--share", type=float, default=1.0)
    asks.add_argument("--rate", type=float)
    asks.add_argument("--side", choices=SIDES)
    given = asks.parse_args()
    if given.side:
        print(json.dumps(one(given.side, given.share, given.rate)))
        return
    sides.use_cores(given.cores)
    command(__doc__, measure, 5, given)


if __name__ == "__main__":
    main()
