"""The zoo: one family per file, made by name."""

# A family registers its models when it is imported.
from adaptive_nets.models import lenet, mlp  # noqa: F401
from adaptive_nets.models.output import logits_of
from adaptive_nets.models.registry import ModelEntry, create_model, list_models, model_entry

__all__ = ["ModelEntry", "create_model", "list_models", "logits_of", "model_entry"]
