"""Ten networks trained: the zoo, a plain PyTorch loop, and `torch.func`'s vmapped members, on one task.

    python -m tests.benchmarks.members [--rounds 5] [--short] [--cores 2] [--torch-threads 1]

1×50 ReLU on 500 rows of 8 features, ten members from prior draws, Adam with a cosine from 0.01 to 0, 400 epochs of
mini-batches of 32 (6,400 steps), float32. The objective is the same for all: noise fixed at 0.3, and the Normal(0,
0.5²) prior of every weight and bias, in PyTorch as Adam's weight decay, which costs next to nothing. PyTorch indexes
tensors in memory, with no DataLoader, and has its fused Adam, its fastest here, and one thread: two make steps this
small slower.

Cold is the first call of a process, compilation included, nothing taken from disk, and imports not; warm another in the
same process, with another seed. Every side runs in a process of its own, on the same cores, sides interleaved.
``-log p(z, y) / n`` over all rows, mean over members, shows that they were trained alike.
"""

from __future__ import annotations

import json
import math

import numpy as np

from tests.benchmarks import sides
from tests.benchmarks.cold import data
from tests.benchmarks.rows import Row, command, parser

SIDES = ("zoo", "torch loop", "torch.func")
MEMBERS, WIDTH, BATCH, RATE = 10, 50, 32, 0.01
NOISE, PRIOR_SD = 0.3, 0.5


def minus_log_posterior(f: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Per row, of one member."""
    half = 0.5 * math.log(2 * math.pi)
    likelihood = -0.5 * np.sum(((y - f) / NOISE) ** 2) - len(y) * (math.log(NOISE) + half)
    prior = -0.5 * np.sum((weights / PRIOR_SD) ** 2) - len(weights) * (math.log(PRIOR_SD) + half)
    return float(-(likelihood + prior) / len(y))


def zoo(epochs: int, seed: int) -> float:
    """Train, and return the mean loss."""
    import bnn_zoo as zoo

    x, y = data()
    model = zoo.models.MLP(hidden=(WIDTH,), weight_scale=PRIOR_SD, bias_scale=PRIOR_SD, fan_in=False, noise=NOISE)
    steps = epochs * math.ceil(len(x) / BATCH)
    method = zoo.methods.DeepEnsemble(
        num_members=MEMBERS, num_steps=steps, learning_rate=RATE, batch_size=BATCH, polish_steps=0
    )
    posterior = zoo.fit(model, method, (x, y), seed=seed, standardize=False, progress=False)
    return float(-posterior.stats["lp"].mean() / len(x))


def torch_loop(epochs: int, seed: int) -> float:
    """One member after another."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    x, y = (torch.tensor(a, dtype=torch.float32) for a in data())
    rates, losses = cosine(epochs * math.ceil(len(x) / BATCH)), []
    for _ in range(MEMBERS):
        net = nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        for p in net.parameters():
            nn.init.normal_(p, std=PRIOR_SD)
        optimizer = torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=PRIOR_SD**-2 / len(x), fused=True)
        step = 0
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                optimizer.param_groups[0]["lr"] = rates[step]
                loss = nn.functional.mse_loss(net(x[rows])[:, 0], y[rows]) / (2 * NOISE**2)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
        with torch.no_grad():
            weights = torch.cat([p.reshape(-1) for p in net.parameters()]).double().numpy()
            losses.append(minus_log_posterior(net(x)[:, 0].double().numpy(), y.double().numpy(), weights))
    return float(np.mean(losses))


def torch_func(epochs: int, seed: int) -> float:
    """All members at once, each with its own batches: vmap of grad of a functional call, as PyTorch's tutorial does."""
    import torch
    from torch import nn
    from torch.func import functional_call, grad, stack_module_state, vmap

    torch.manual_seed(seed)
    x, y = (torch.tensor(a, dtype=torch.float32) for a in data())
    rates, losses = cosine(epochs * math.ceil(len(x) / BATCH)), []
    nets = [nn.Sequential(nn.Linear(x.shape[1], WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)) for _ in range(MEMBERS)]
    for net in nets:
        for p in net.parameters():
            nn.init.normal_(p, std=PRIOR_SD)
    stacked, _ = stack_module_state(nets)
    optimizer = torch.optim.Adam(stacked.values(), lr=RATE, weight_decay=PRIOR_SD**-2 / len(x), fused=True)

    def loss(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(functional_call(nets[0], weights, (x,))[:, 0], y) / (2 * NOISE**2)

    gradients, step = vmap(grad(loss)), 0
    for _ in range(epochs):
        order = torch.stack([torch.randperm(len(x)) for _ in range(MEMBERS)])
        for rows in order.split(BATCH, dim=1):
            optimizer.param_groups[0]["lr"] = rates[step]
            for name, g in gradients({k: v.detach() for k, v in stacked.items()}, x[rows], y[rows]).items():
                stacked[name].grad = g
            optimizer.step()
            step += 1
    with torch.no_grad():
        for i in range(MEMBERS):
            one = {name: values[i] for name, values in stacked.items()}
            weights = torch.cat([p.reshape(-1) for p in one.values()]).double().numpy()
            f = functional_call(nets[0], one, (x,))[:, 0].double().numpy()
            losses.append(minus_log_posterior(f, y.double().numpy(), weights))
    return float(np.mean(losses))


def cosine(steps: int) -> list[float]:
    """Learning rates."""
    return [RATE * 0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]


def one(side: str, threads: int, epochs: int) -> sides.Run:
    """Train twice in this process."""
    if side == "zoo":
        import jax

        import bnn_zoo  # noqa: F401

        jax.devices()
        train = zoo
    else:
        import torch
        import torch.func

        torch.set_num_threads(threads)
        train = torch_loop if side == "torch loop" else torch_func
    losses: list[float] = []
    first, second = (sides.timed(lambda seed=seed: losses.append(train(epochs, seed))) for seed in (0, 1))
    return {"first": first, "second": second, "loss": float(np.mean(losses))}


def measure(rounds: int, short: bool) -> list[Row]:
    """Interleave the sides."""
    peers = SIDES[1:] if sides.installed("torch") else ()
    epochs = 40 if short else 400
    found = sides.interleaved(
        "tests.benchmarks.members", SIDES[:1] + peers, rounds, "--epochs", str(epochs), "--torch-threads", "1"
    )
    losses = ", ".join(f"{side} {sides.median(runs, 'loss'):.3f}" for side, runs in found.items())
    print(f"{epochs * math.ceil(500 / BATCH):,} steps; -log p(z, y) / n at the end: {losses}")
    names = {"torch loop": ("PyTorch loop", 25, 8), "torch.func": ("torch.func's vmapped members", 6, None)}
    rows = []
    for peer in peers:
        name, warm, cold = names[peer]
        for state, call, asked in (("warm", "second", warm), ("cold", "first", cold)):
            ours, theirs = sides.each(found["zoo"], call), sides.each(found[peer], call)
            rows.append(Row("deep ensemble of ten", name, state, "s", ours, theirs, asked=asked))
    return rows


def main() -> None:
    """Run one side, or all of them in turn."""
    asks = parser(__doc__, 5)
    asks.add_argument("--cores", type=int, default=sides.cores())
    asks.add_argument("--torch-threads", type=int, default=1)
    asks.add_argument("--epochs", type=int, default=400)
    asks.add_argument("--side", choices=SIDES)
    given = asks.parse_args()
    if given.side:
        print(json.dumps(one(given.side, given.torch_threads, given.epochs)))
        return
    sides.use_cores(given.cores)
    command(__doc__, measure, 5, given)


if __name__ == "__main__":
    main()
