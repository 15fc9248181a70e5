"""Images and networks of runs that start from a trained network for CIFAR-10."""

from __future__ import annotations

from adaptive_nets.training.config import DataConfig, ModelConfig

SOURCE = "source"
"""Value of ``--data.centre`` for the normalisation of the network that a run starts from."""
# Padded by 4 on each side, cropped and flipped at random, as in the training of he2015.
CIFAR_DATA = DataConfig(
    name="cifar10", batch_size=128, eval_batch_size=500, centre=SOURCE, crop_padding=4, flip=True
)
CIFAR_MODEL = ModelConfig(name="resnet32_cifar10")
SMOKE_MODEL = ModelConfig(name="resnet20_cifar10")
