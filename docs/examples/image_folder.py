"""Trains a small CNN on a directory of images, one folder a class, as torchvision's ImageFolder has it.

    stokerd &
    python image_folder.py                   # draws its own images
    python image_folder.py --data DIR        # DIR/cat/1.jpg, DIR/dog/7.jpg, ...

Needs torch and pillow. A whole batch is decoded at once (`batch_transform=`), by threads
beside the training loop, into one tensor that is made once a batch.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import argparse
import io
import random
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


def decode(batch: stoker.Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 [rows, SIDE, SIDE, 3] and labels int64 [rows] of a batch of files."""
    images = np.empty((batch.rows, SIDE, SIDE, 3), np.uint8)
    for row, data in enumerate(batch["data"]):
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (SIDE, SIDE))  # a JPEG is decoded small, which is several times quicker
            images[row] = np.asarray(image.convert("RGB").resize((SIDE, SIDE)))
    # A copy of the labels: a view would hold the batch's slot of the ring as long as it lives.
    return torch.from_numpy(images), batch["label"].clone()


def model(classes: int) -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 7 * 7, classes),
    )  # fmt: skip


def draw_images(directory: Path, number: int) -> None:
    """Make JPEGs of lying and standing bars in random places and colours."""
    chance = random.Random(0)
    for index in range(number):
        kind, size = (("lying", (20, 6)), ("standing", (6, 20)))[index % 2]
        image = Image.new("RGB", (48, 48), tuple(chance.randrange(100) for _ in range(3)))
        x, y = chance.randrange(28), chance.randrange(28)
        colour = tuple(chance.randrange(155, 256) for _ in range(3))
        ImageDraw.Draw(image).rectangle((x, y, x + size[0], y + size[1]), fill=colour)
        (directory / kind).mkdir(parents=True, exist_ok=True)
        image.save(directory / kind / f"{index:06}.jpg")


def ensure_dataset(name: str, directory: Path) -> None:
    """Give the directory a name at the daemon, unless it has one already."""
    try:
        stoker.dataset_info(name)
    except stoker.NotFoundError:
        stoker.add_dataset(name, directory, format="raw", include=["**/*.{jpg,jpeg,png,JPEG}"])


def main() -> None:
    """Train, then say what the loss did and what the training loop waited for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="directory of class folders (default: draw one in ./example-data)")
    parser.add_argument("--dataset", default="example-folder", help="name of the dataset at the daemon")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a few seconds, as the tests run it")
    arguments = parser.parse_args()

    directory = arguments.data or Path("example-data/folder")
    if arguments.data is None and not directory.exists():
        draw_images(directory, 1000 if arguments.quick else 4000)
    ensure_dataset(arguments.dataset, directory)

    ds = stoker.Dataset(arguments.dataset, batch_size=50, shuffle=True, seed=7, batch_transform=decode)
    loader: DataLoader[Any] = DataLoader(ds, batch_size=None, num_workers=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = model(len(ds.classes)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(3 if arguments.quick else arguments.epochs):
        for images, labels in loader:
            # Floats are made on the device: a quarter of the bytes cross the bus.
            x = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255
            loss = functional.cross_entropy(network(x), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

    stats = ds.stats()
    print(f"classes {', '.join(ds.classes)}")
    print(f"loss {losses[0]:.3f} -> {sum(losses[-5:]) / 5:.3f} in {len(losses)} steps, {stats.samples} samples")
    print(f"stalled {stats.stall_share:.1%} of {stats.wall_seconds:.1f} s")
    ds.close()


if __name__ == "__main__":
    main()
