"""Classification heads of the Meta study."""

from __future__ import annotations

from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import fan_in_uniform, global_avg_pool
from adaptive_nets.layers.conv3d import Form
from adaptive_nets.layers.meta import GroupedDense, Meta, MetaInit
from adaptive_nets.layers.prelu import PReLU
from adaptive_nets.runtime.errors import UserError

HeadKind = Literal["fc", "meta", "gap", "grouped"]


class StudyHead(nn.Module):
    """Classification head, float[N, H, W, C] -> float[N, num_classes] [kondaurova].

    Features are flattened channel-major, so that a group of features is a range of channels.

    Attributes:
        kind: "fc": two dense layers. "meta": a small dense layer for each group of features, a Meta
            layer that mixes their outputs, a dense layer. "grouped": "meta" without the Meta layer.
            "gap": the mean over positions and one dense layer.
        hidden: number H of inputs of the last dense layer in "fc" and in the text form.
        published: (groups G, outputs L per group, output groups M) of the code form.
        groups: number G of groups; the published number if None.
        form: form of "meta" and "grouped": "code" has the published L and M, "text" has L = H/G and
            M = G. Both agree in test 1.
        meta_init: initialisation of the Meta layer.
        num_classes: number of logits.
        dtype: dtype of the computation.
    """

    kind: HeadKind
    hidden: int
    published: tuple[int, int, int]
    groups: int | None = None
    form: Form = "code"
    meta_init: MetaInit = "normal"
    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of maps."""
        if self.kind not in get_args(HeadKind):
            raise UserError(
                f"head is {self.kind!r}; expected one of {', '.join(get_args(HeadKind))}"
            )
        if self.kind == "gap":
            return self._dense(global_avg_pool(x), self.num_classes, "fc")
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
        if self.kind == "fc":
            x = PReLU(name="prelu")(self._dense(x, self.hidden, "fc1"))
            x = nn.Dropout(0.2)(x, deterministic=not train)
            return self._dense(x, self.num_classes, "fc2")
        groups, features, outputs = self._sizes()
        x = GroupedDense(groups, features, dtype=self.dtype, name="groups")(x)
        x = nn.Dropout(0.1)(PReLU(groups, name="groups_prelu")(x), deterministic=not train)
        if self.kind == "meta":
            x = Meta(groups, outputs, self.meta_init, dtype=self.dtype, name="meta")(x)
            x = PReLU(name="prelu")(x)
        # Flattened feature-major, group-minor, as in the authors' code.
        x = jnp.swapaxes(x.reshape(x.shape[0], -1, features), 1, 2).reshape(x.shape[0], -1)
        return self._dense(x, self.num_classes, "fc")

    def _dense(self, x: Float[Array, "N I"], features: int, name: str) -> Float[Array, "N O"]:
        return nn.Dense(
            features,
            dtype=self.dtype,
            kernel_init=fan_in_uniform.kernel_init(),
            bias_init=fan_in_uniform.bias_init(x.shape[-1]),
            name=name,
        )(x)

    def _sizes(self) -> tuple[int, int, int]:
        """Returns G, L and M."""
        groups, features, outputs = self.published
        groups = self.groups or groups
        if self.form == "code":
            return groups, features, outputs
        if self.form != "text":
            raise UserError(f"form is {self.form!r}; expected 'code' or 'text'")
        if self.hidden % groups:
            raise UserError(
                f"groups is {groups}; expected a divisor of the head's {self.hidden} features"
            )
        return groups, self.hidden // groups, groups
