"""Metrics shared by the records of several papers."""

from __future__ import annotations

from adaptive_nets.training.loop import TrainResult
from experiments.suite.experiment import Metric


def accuracy_metrics(result: TrainResult, *, train_images: int | None = None) -> dict[str, Metric]:
    """Returns error, accuracy and loss on the test set and on training images.

    ``top1`` and ``top5`` are added if the task measures the top-5 error.

    Args:
        result: result of the training.
        train_images: number of training images, taken from the front; the number of test images if
            None.
    """
    test = result.evaluate(result.state.eval_variables, result.test)
    chosen = min(result.test.size if train_images is None else train_images, result.train.size)
    fitted = result.evaluate(result.state.eval_variables, result.train.first(chosen))
    note = "" if chosen == result.train.size else "the first ones"
    count, seen = int(test["count"]), int(fitted["count"])
    tops = {}
    if "top5_error" in test:
        tops = {
            name: Metric(100 - 100 * test[measure], "%", count)
            for name, measure in (("top1", "error"), ("top5", "top5_error"))
        }
    return {
        **tops,
        "error": Metric(100 * test["error"], "%", count),
        "nll": Metric(test["nll"], "nats", count),
        "test_accuracy": Metric(100 - 100 * test["error"], "%", count),
        "train_accuracy": Metric(100 - 100 * fitted["error"], "%", seen, note),
        "train_nll": Metric(fitted["nll"], "nats", seen, note),
    }
