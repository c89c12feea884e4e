"""Trains with DistributedDataParallel, and proves that the ranks share an epoch.

    stokerd &
    torchrun --standalone --nproc-per-node 2 ddp.py
    torchrun --standalone --nproc-per-node 2 ddp.py --stop-after 5     # writes a checkpoint, ...
    python ddp.py --resume                                             # ... continued by one rank

Needs torch. The samples are WebDataset shards of .npy and .cls parts, which come as
typed columns. Ranks share samples, not shards: any number of shards will do, all ranks
have equally many batches, and a checkpoint is continued by any number of ranks.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import argparse
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

import stoker

FEATURES = 16


def make_shards(directory: Path, samples: int, shards: int) -> None:
    """Write vectors and whether they sum up to more than zero, in shards of uneven sizes."""
    directory.mkdir(parents=True, exist_ok=True)
    vectors = np.random.default_rng(0).standard_normal((samples, FEATURES)).astype(np.float32)
    cuts = [samples * (shard + 1) ** 2 // shards**2 for shard in range(shards)]
    for shard, (first, last) in enumerate(zip([0, *cuts], cuts, strict=False)):
        with tarfile.open(directory / f"{shard:06}.tar", "w") as archive:
            for index in range(first, last):
                content = io.BytesIO()
                np.save(content, vectors[index])
                label = b"%d" % (vectors[index].sum() > 0)
                for part, data in (("npy", content.getvalue()), ("cls", label)):
                    member = tarfile.TarInfo(f"{index:06}.{part}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def ensure_dataset(name: str, directory: Path) -> None:
    """Give the directory a name at the daemon, unless it has one already."""
    try:
        stoker.dataset_info(name)
    except stoker.NotFoundError:
        stoker.add_dataset(name, directory, format="tar")


def all_ranks(mine: list[Any]) -> list[list[Any]]:
    """The lists of all ranks."""
    lists: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(lists, mine)
    return lists


def train(
    ds: stoker.Dataset, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> tuple[list[float], list[int]]:
    """Train to the end of the epoch, or for so many steps; the losses and the sample numbers of this rank."""
    losses, seen = [], []
    for batch in ds:
        x = torch.from_numpy(np.stack(batch["npy"]))
        loss = functional.cross_entropy(model(x), batch["cls"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seen += batch.index.tolist()
        if len(losses) == steps:
            break
    return losses, seen


def main() -> None:
    """Train for an epoch or a part of it, check who saw what, and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("example-data/vectors"))
    parser.add_argument("--dataset", default="example-vectors", help="name of the dataset at the daemon")
    parser.add_argument("--checkpoint", type=Path, default=Path("example-data/ddp.pt"))
    parser.add_argument("--stop-after", type=int, default=0, metavar="STEPS", help="stop within the epoch, and save")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument("--quick", action="store_true", help="a second or so, as the tests run it")
    arguments = parser.parse_args()

    # Alone, without torchrun, this is rank 0 of 1.
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29511")):
        os.environ.setdefault(name, value)
    distributed.init_process_group("gloo")
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    if rank == 0:  # one rank of a node adds the dataset, the others wait
        if not arguments.data.exists():
            make_shards(arguments.data, *((1003, 5) if arguments.quick else (20_011, 21)))
        ensure_dataset(arguments.dataset, arguments.data)
    distributed.barrier()

    # RANK and WORLD_SIZE are read from the environment; no DistributedSampler, no split by node or worker.
    ds = stoker.Dataset(arguments.dataset, batch_size=20, shuffle=True, seed=7)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before: list[int] = []
    if arguments.resume:
        saved = torch.load(arguments.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        ds.load_state_dict(saved["dataset"])
        before = saved["seen"]

    losses, mine = train(ds, model, optimizer, arguments.stop_after)
    seen = all_ranks(mine)
    if rank == 0:
        together = before + [number for numbers in seen for number in numbers]
        assert len(together) == len(set(together)), "a sample came twice within the epoch"
        stats = ds.stats()
        print(f"ranks {ranks}, samples of each: {', '.join(str(len(numbers)) for numbers in seen)}; none came twice")
        print(f"epoch: {len(together)} of {ds.samples} samples")
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps")
        print(f"stalled {stats.stall_share:.1%} of {stats.wall_seconds:.1f} s")
        # The position is the same on all ranks: one state is enough.
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "dataset": ds.state_dict()}
        torch.save({**state, "seen": together}, arguments.checkpoint)
    ds.close()
    distributed.barrier()  # nobody leaves while others still talk
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
