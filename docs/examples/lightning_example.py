"""Trains with Lightning, and continues in the middle of an epoch after a stop.

    stokerd &
    python lightning_example.py

Needs torch and pytorch-lightning. The Dataset itself is what Trainer.fit gets: it has
state_dict() and load_state_dict(), so Lightning's checkpoints hold its position, and
a run that is resumed takes each remaining sample of the epoch exactly once.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional

import stoker

BLOCK_SIZE, VOCABULARY = 32, 64


class Model(lightning.LightningModule):
    """Predicts the next token from the one before it."""

    def __init__(self, ds: stoker.Dataset) -> None:
        super().__init__()
        self.ds = ds
        self.layers = nn.Sequential(nn.Embedding(VOCABULARY, 32), nn.ReLU(), nn.Linear(32, VOCABULARY))
        self.losses: list[float] = []
        self.seen: list[int] = []

    def training_step(self, batch: stoker.Batch, _: int) -> torch.Tensor:
        """The loss of one batch, whose tensors Lightning has moved to the device."""
        self.seen += batch.index.tolist()
        logits = self.layers(batch["x"].long())
        loss = functional.cross_entropy(logits.flatten(0, 1), batch["y"].long().flatten())
        self.losses.append(loss.item())
        return loss

    def on_train_epoch_start(self) -> None:
        """Lightning counts the batches and never asks for one too many, so say that a new epoch begins."""
        self.ds.set_epoch(self.current_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def make_tokens(directory: Path, tokens: int) -> None:
    """Write a walk over the vocabulary: each token is the one before it, plus 1 to 3."""
    directory.mkdir(parents=True, exist_ok=True)
    walk = np.random.default_rng(0).integers(1, 4, tokens).cumsum() % VOCABULARY
    walk.astype(np.uint16).tofile(directory / "train.bin")


def ensure_dataset(name: str, directory: Path) -> None:
    """Give the directory a name at the daemon, unless it has one already."""
    try:
        stoker.dataset_info(name)
    except stoker.NotFoundError:
        stoker.add_dataset(name, directory, format="tokens")


def dataset(name: str) -> stoker.Dataset:
    """The same settings before and after the stop: the order is a function of them."""
    return stoker.Dataset(name, batch_size=32, block_size=BLOCK_SIZE, shuffle=True, seed=7, drop_last=True)


def trainer(directory: Path, save_every: int, max_steps: int = -1) -> lightning.Trainer:
    """A Trainer for two epochs that says little, and saves a checkpoint after so many steps."""
    save = ModelCheckpoint(
        directory, filename="{step}", save_top_k=-1, every_n_train_steps=save_every, enable_version_counter=False
    )
    return lightning.Trainer(
        accelerator="auto", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[save], max_epochs=2, max_steps=max_steps,
    )  # fmt: skip


def main() -> None:
    """Train for one epoch and a half, stop, and continue from the checkpoint to the end of the second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="directory of .bin files (default: make one in ./example-data)")
    parser.add_argument("--dataset", default="example-walk", help="name of the dataset at the daemon")
    parser.add_argument("--checkpoints", type=Path, default=Path("example-data/lightning"))
    parser.add_argument("--quick", action="store_true", help="a few seconds, as the tests run it")
    arguments = parser.parse_args()
    directory = arguments.data or Path("example-data/walk")
    if arguments.data is None and not directory.exists():
        make_tokens(directory, 32 * 33 * 40 if arguments.quick else 1 << 20)
    ensure_dataset(arguments.dataset, directory)
    warnings.filterwarnings("ignore", ".*num_workers.*|.*does not have many workers.*")

    ds = dataset(arguments.dataset)
    steps = len(ds) + len(ds) // 2
    lightning.seed_everything(0, verbose=False)
    first = Model(ds)
    trainer(arguments.checkpoints, steps, max_steps=steps).fit(first, train_dataloaders=ds)
    stats = ds.stats()
    ds.close()

    checkpoint = arguments.checkpoints / f"step={steps}.ckpt"
    ds = dataset(arguments.dataset)
    second = Model(ds)
    trainer(arguments.checkpoints, steps).fit(second, train_dataloaders=ds, ckpt_path=str(checkpoint))
    ds.close()

    epoch = len(ds) * 32
    print(f"loss {first.losses[0]:.3f} -> {second.losses[-1]:.3f} in {len(first.losses) + len(second.losses)} steps")
    print(f"stalled {stats.stall_share:.1%} of {stats.wall_seconds:.1f} s")
    print(f"first epoch: {len(set(first.seen[:epoch]))} different samples of {epoch}")
    print(f"second epoch, over the stop: {len(set(first.seen[epoch:] + second.seen))} of {epoch}")
    print(f"its order is another: {first.seen[epoch : epoch + 100] != first.seen[:100]}")


if __name__ == "__main__":
    main()
