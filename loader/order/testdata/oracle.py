"""The orders of torch and numpy, from torch and numpy themselves.

Without arguments it is the oracle of sampler_oracle_test.go: for each line of standard
input, a request in JSON, it writes a line, the answer:

    {"spec": {...}, "epoch": e}               samples of the epoch, as Spec of package order has it
    {"spec": ..., "epoch": ..., "share": {}}  batches of one rank, as a padded Share has it
    {"seed": s, "longs": n}                   n times 64 bits of torch's generator

With --golden it writes samplers.json anew: python oracle.py --golden >samplers.json
"""

import hashlib
import json
import random
import struct
import sys
from typing import Any

import numpy
import torch
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data.distributed import DistributedSampler


def generator(seed: int) -> torch.Generator:
    g = torch.Generator()
    g.manual_seed(seed)
    return g


def torch_epoch(seeding: str, seed: int, samples: int, epoch: int) -> list[int]:
    """The order of an epoch, by iterating what a user iterates in all epochs up to it."""
    numbers: Any = range(samples)
    if seeding == "":
        sampler: DistributedSampler[int] = DistributedSampler(numbers, num_replicas=1, rank=0, seed=seed)
        sampler.set_epoch(epoch)
        direct = RandomSampler(numbers, generator=generator(seed + epoch))
        order = list(sampler)
        assert order == list(direct)
        return order
    if seeding == "once":
        again = RandomSampler(numbers, generator=generator(seed))
        return [list(again) for _ in range(epoch + 1)][-1]
    options: dict[str, Any] = {"batch_size": 7, "shuffle": True}
    if seeding == "loader_generator":
        options["generator"] = generator(seed)
    if seeding == "loader_persistent":
        options.update(num_workers=1, persistent_workers=True)
    torch.manual_seed(seed)
    loader: DataLoader[int] = DataLoader(numbers, **options)
    return [torch.cat(list(loader)).tolist() for _ in range(epoch + 1)][-1]


def numpy_epoch(seeding: str, seed: int, samples: int, epoch: int) -> list[int]:
    """The order of an epoch, by drawing all epochs up to it."""
    if seeding == "":
        numpy.random.seed(seed + epoch)
        as_list = list(range(samples))
        numpy.random.shuffle(as_list)
        as_array = numpy.arange(samples)
        numpy.random.RandomState(seed + epoch).shuffle(as_array)
        permutation = numpy.random.RandomState(seed + epoch).permutation(samples)
        assert as_list == as_array.tolist() == permutation.tolist()
        return as_list
    state = numpy.random.RandomState(seed)
    if seeding == "once":
        orders: list[list[int]] = [state.permutation(samples).tolist() for _ in range(epoch + 1)]
        return orders[-1]
    assert seeding == "in_place"
    kept = list(range(samples))
    for _ in range(epoch + 1):
        state.shuffle(kept)
    return kept


def order(spec: dict[str, Any], epoch: int) -> list[int]:
    draw = {"torch": torch_epoch, "numpy": numpy_epoch}[spec["kind"]]
    return draw(spec.get("seeding", ""), spec["seed"], spec["samples"], epoch)


def batches(spec: dict[str, Any], epoch: int, share: dict[str, Any]) -> list[list[int]]:
    """What a DataLoader with a DistributedSampler gives one rank."""
    numbers: Any = range(spec["samples"])
    sampler: DistributedSampler[int] = DistributedSampler(
        numbers,
        num_replicas=share["world_size"],
        rank=share["rank"],
        shuffle=spec["kind"] == "torch",
        seed=spec["seed"],
        drop_last=share["drop_last"],
    )
    sampler.set_epoch(epoch)
    loader: DataLoader[int] = DataLoader(
        numbers, batch_size=share["batch_size"], sampler=sampler, drop_last=share["drop_last"]
    )
    return [batch.tolist() for batch in loader]


def answer(request: dict[str, Any]) -> Any:
    if "longs" in request:
        drawn = torch.empty(request["longs"], dtype=torch.int64)
        drawn.random_(-(2**63), None, generator=generator(request["seed"]))
        return [number % 2**64 for number in drawn.tolist()]
    if "share" in request:
        return batches(request["spec"], request["epoch"], request["share"])
    return order(request["spec"], request["epoch"])


def summary(samples: list[int]) -> dict[str, Any]:
    packed = struct.pack(f"<{len(samples)}q", *samples)
    return {"first": samples[:12], "last": samples[-4:], "sha256": hashlib.sha256(packed).hexdigest()}


def golden(request: dict[str, Any]) -> dict[str, Any]:
    """The request with a summary of its answer."""
    found = answer(request)
    if "share" not in request:
        return {**request, **summary(found)}
    lengths = [len(batch) for batch in found]
    return {**request, **summary([sample for batch in found for sample in batch]), "batches": lengths}


def spec(kind: str, seed: int, samples: int, seeding: str = "") -> dict[str, Any]:
    made = {"kind": kind, "seed": seed, "samples": samples}
    return {**made, "seeding": seeding} if seeding else made


def requests() -> list[dict[str, Any]]:
    """What samplers.json holds: cases worth a look, and many drawn at random."""
    seeds, sizes = (0, 1, 42, 2**32 - 1, 2**32 + 1, 2**63), (1, 2, 3, 10, 623, 624, 625, 1000)
    named = [("torch", s, n) for s in seeds for n in sizes]
    named += [("numpy", s, n) for s in (0, 1, 124, 2**32 - 1) for n in (1, 2, 3, 12, 624, 1000, 65536, 65537)]
    named += [("torch", 42, 1281167), ("numpy", 42, 1281167), ("torch", 7, 65537)]
    made: list[dict[str, Any]] = [{"spec": spec(*case), "epoch": 0} for case in named]
    made += [{"spec": spec("torch", 7, 10, "loader_persistent"), "epoch": epoch} for epoch in range(3)]
    dice = random.Random(4)
    seedings = {"torch": ["", "once", "loader", "loader_generator"], "numpy": ["", "once", "in_place"]}
    for _ in range(240):
        kind = dice.choice(["torch", "numpy"])
        drawn = spec(kind, dice.randrange(2 ** dice.randint(1, 31)), dice.randint(1, 3000), dice.choice(seedings[kind]))
        made.append({"spec": drawn, "epoch": dice.randint(0, 9)})
    for _ in range(120):
        world = dice.randint(1, 9)
        share = {
            "rank": dice.randrange(world),
            "world_size": world,
            "batch_size": dice.randint(1, 12),
            "drop_last": dice.random() < 0.5,
        }
        kind = dice.choice(["torch", "torch", "sequential"])
        drawn = spec(kind, dice.randrange(1000), dice.choice([1, 2, 5, 60, 201]))
        made.append({"spec": drawn, "epoch": dice.randint(0, 9), "share": share})
    return made


def write_golden() -> None:
    lines = ",\n  ".join(json.dumps(golden(request)) for request in requests())
    libraries = {"torch": torch.__version__.split("+")[0], "numpy": numpy.__version__}
    sys.stdout.write(f'{{"libraries": {json.dumps(libraries)}, "cases": [\n  {lines}\n]}}\n')


def main() -> None:
    if sys.argv[1:] == ["--golden"]:
        write_golden()
        return
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
