"""Trains a small CNN on WebDataset tar shards of JPEGs, decoded by a pool of threads.

    stokerd &
    python image_classification.py           # draws its own shards
    python image_classification.py --data DIR    # DIR/*.tar with members 000.jpg, 000.cls, 001.jpg, ...

Needs torch and pillow. `transform=` gets one sample at a time, in threads beside the
training loop; pillow lets go of Python's lock while it decodes, so that threads help.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import argparse
import io
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import stoker

SIDE = 32


def decode(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """One image, uint8 [3, SIDE, SIDE], and its class, out of one sample's parts."""
    with Image.open(io.BytesIO(sample["image"])) as image:
        image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded small, which is several times quicker
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE)))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()), sample["cls"]


def model(classes: int) -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 7 * 7, classes),
    )  # fmt: skip


def draw_sample(index: int, chance: random.Random) -> dict[str, bytes]:
    """A JPEG of a lying or a standing bar, its class, and a caption that training does not want."""
    kind, size = ((b"lying", (20, 6)), (b"standing", (6, 20)))[index % 2]
    image = Image.new("RGB", (48, 48), tuple(chance.randrange(100) for _ in range(3)))
    x, y = chance.randrange(28), chance.randrange(28)
    colour = tuple(chance.randrange(155, 256) for _ in range(3))
    ImageDraw.Draw(image).rectangle((x, y, x + size[0], y + size[1]), fill=colour)
    content = io.BytesIO()
    image.save(content, "JPEG")
    return {"cls": b"%d" % (index % 2), "jpg": content.getvalue(), "txt": b"a %s bar" % kind}


def draw_shards(directory: Path, samples: int, samples_per_shard: int) -> None:
    """Write tar shards as webdataset's ShardWriter does: consecutive members of one key are a sample."""
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)
    for first in range(0, samples, samples_per_shard):
        with tarfile.open(directory / f"train-{first // samples_per_shard:06}.tar", "w") as shard:
            for index in range(first, min(first + samples_per_shard, samples)):
                for part, content in draw_sample(index, chance).items():
                    member = tarfile.TarInfo(f"{index:06}.{part}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    # An image that is none, as data sets of the real world have them.
    with tarfile.open(directory / "train-broken.tar", "w") as shard:
        for part, content in (("cls", b"0"), ("jpg", b"\xff\xd8\xff no image")):
            member = tarfile.TarInfo(f"broken.{part}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


def ensure_dataset(name: str, directory: Path) -> None:
    """Give the directory a name at the daemon, unless it has one already."""
    try:
        stoker.dataset_info(name)
    except stoker.NotFoundError:
        stoker.add_dataset(name, directory, format="tar")


def main() -> None:
    """Train, then say what the loss did and what the training loop waited for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="directory of .tar shards (default: make one in ./example-data)")
    parser.add_argument("--dataset", default="example-shards", help="name of the dataset at the daemon")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few seconds, as the tests run it")
    arguments = parser.parse_args()

    directory = arguments.data or Path("example-data/shards")
    if arguments.data is None and not directory.exists():
        draw_shards(directory, *((1000, 300) if arguments.quick else (10_000, 1000)))
    ensure_dataset(arguments.dataset, directory)

    ds = stoker.Dataset(
        arguments.dataset,
        batch_size=50,
        shuffle=True,  # over all samples of all shards, not within a buffer
        seed=7,
        select={"image": "jpg;jpeg;png", "cls": "cls"},  # other parts are not even read
        transform=decode,
        on_error="skip",  # leave out what cannot be decoded, and count it
    )
    # The Dataset makes batches, the daemon reads ahead: the loader does neither. `for ... in ds` does the same.
    loader: DataLoader[Any] = DataLoader(ds, batch_size=None, num_workers=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = model(arguments.classes).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses: list[float] = []
    epochs = 3 if arguments.quick else arguments.epochs
    for _ in range(epochs):
        for images, labels in loader:  # what torch's default_collate makes of the tuples
            x = images.to(device, non_blocking=True).float() / 255
            loss = functional.cross_entropy(network(x), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    stats = ds.stats()
    print(f"loss {losses[0]:.3f} -> {sum(losses[-5:]) / 5:.3f} in {len(losses)} steps, {stats.samples} samples")
    print(f"stalled {stats.stall_share:.1%} of {stats.wall_seconds:.1f} s")
    print(f"left out {stats.transform_errors} samples that could not be decoded in {epochs} epochs")
    ds.close()


if __name__ == "__main__":
    main()
