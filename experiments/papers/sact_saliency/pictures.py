"""Small pictures of a record: photographs, where people looked, where the network computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from adaptive_nets.data.fixations import FixationSet
from adaptive_nets.data.pictures import fitted_size, resize_picture
from adaptive_nets.saliency import resized, unit_scaled
from experiments.papers.sact_saliency.measures import HumanMaps

PICTURED = 6
_LONGER_SIDE = 96


def picture_arrays(
    pictures: FixationSet, maps: Sequence[np.ndarray], human: Callable[[int], HumanMaps]
) -> dict[str, np.ndarray]:
    """Returns the first pictures of the most frequent size, reduced.

    Args:
        pictures: pictures with fixations.
        maps: ponder map of each picture.
        human: number of a picture -> fixations on it.

    Returns:
        ``pictures`` uint8[P, h, w, 3]; ``human`` uint8[P, h, w], blurred fixations from 0 to 255;
        ``ponder`` float32[P, h, w], ponder costs.
    """
    shape, _ = Counter(map_.shape for map_ in maps).most_common(1)[0]
    chosen = [i for i, map_ in enumerate(maps) if map_.shape == shape][:PICTURED]
    size = fitted_size((shape[0], shape[1]), min(_LONGER_SIDE, max(shape)))
    photographs, looked = [], []
    for i in chosen:
        photographs.append(resize_picture(pictures.read(i).image, size))
        density = 255 * unit_scaled(human(i).density)
        looked.append(resize_picture(np.rint(density).astype(np.uint8)[..., None], size)[..., 0])
    return {
        "pictures": np.stack(photographs),
        "human": np.stack(looked),
        "ponder": np.stack([resized(maps[i], size) for i in chosen]).astype(np.float32),
    }
