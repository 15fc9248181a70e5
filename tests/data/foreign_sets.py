"""Sets as TFDS's own builders write them: PNG images, shuffled, no checksums of ours."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image


class ForeignBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("3.0.2")
    name = "foreign"
    url_infos = {}  # noqa: RUF012

    def __init__(self, name, arrays, label_names, *, image_feature, **kwargs):
        self.name = name
        self.arrays, self.label_names, self.image_feature = arrays, label_names, image_feature
        super().__init__(**kwargs)

    def _info(self):
        shape = next(iter(self.arrays.values()))[0].shape[1:]
        kinds = {
            "png": lambda: tfds.features.Image(shape=shape, encoding_format="png"),
            "list": lambda: tfds.features.Tensor(shape=shape, dtype=np.uint8),
        }
        features = {"image": kinds[self.image_feature](), "id": tfds.features.Text()}
        for key, names in self.label_names.items():
            features[key] = tfds.features.ClassLabel(num_classes=len(names))
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.arrays}

    def _generate_examples(self, split):
        images, labels = self.arrays[split]
        for index, image in enumerate(images):
            value = image
            if self.image_feature == "png":
                value = io.BytesIO()
                Image.fromarray(image.squeeze()).save(value, "png")
                value.seek(0)
            row = {key: int(column[index]) for key, column in labels.items()}
            yield f"{split}_{index}", {"image": value, "id": f"{split}_{index}", **row}


def write_foreign(root: Path, name, arrays, label_names, *, image_feature="png") -> Path:
    """Lays a set out as TFDS does, at ROOT/NAME/3.0.2."""
    builder = ForeignBuilder(
        name,
        arrays,
        label_names,
        image_feature=image_feature,
        data_dir=str(root),
        file_format="array_record",
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
    return root / name / "3.0.2"
