"""Pictures with human fixations: CAT2000 and MIT1003, from folders or zip archives.

pictures = load_fixations("mit1003")
example = pictures.read(0)
example.image, example.points, example.density
"""

from adaptive_nets.data.fixations.decoding import decode_density, decode_points
from adaptive_nets.data.fixations.generated import GeneratedFixations
from adaptive_nets.data.fixations.sets import (
    FIXATION_SETS,
    FixationExample,
    FixationSet,
    load_fixations,
    read_fixations,
)

__all__ = [
    "FIXATION_SETS",
    "FixationExample",
    "FixationSet",
    "GeneratedFixations",
    "decode_density",
    "decode_points",
    "load_fixations",
    "read_fixations",
]
