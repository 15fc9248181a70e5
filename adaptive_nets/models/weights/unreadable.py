"""Stand-in for an entry of a file that cannot become an array."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """Entry of a file that cannot become an array; only a network that needs it is refused.

    Attributes:
        what: description for messages, such as ``"a tensor of torch.float8_e5m2"``.
        expected: what would be accepted.
    """

    what: str
    expected: str = "a tensor of floats or integers"
