"""Ensembles and test-time augmentation: averages, calibrated measures, policies and embeddings."""

from adaptive_nets.ensembling.averaging import RunningAverage, average_predictions
from adaptive_nets.ensembling.calibration import (
    MEASURES,
    calibrated_log_likelihood,
    calibrated_measures,
    fit_temperature,
    scale_by_temperature,
)
from adaptive_nets.ensembling.embeddings import average_features, interpolate, mean_embedding
from adaptive_nets.ensembling.equivalents import (
    EquivalentBounds,
    deep_ensemble_equivalent,
    equivalent_bounds,
)
from adaptive_nets.ensembling.features import layer_names, linear_head, make_feature_fn
from adaptive_nets.ensembling.linear_probe import LinearHead, choose_penalty, fit_linear_probe
from adaptive_nets.ensembling.measures import (
    accuracy_rejection_area,
    adaptive_calibration_error,
    brier_score,
    error_rate,
    expected_calibration_error,
    log_likelihood,
    static_calibration_error,
)
from adaptive_nets.ensembling.neighbours import (
    Neighbours,
    Retrieval,
    nearest_neighbours,
    neighbour_votes,
    retrieval_scores,
)
from adaptive_nets.ensembling.policies import Policy, SubPolicy
from adaptive_nets.ensembling.policy_files import load_policy, save_policy
from adaptive_nets.ensembling.policy_search import greedy_policy_search, search_policy
from adaptive_nets.ensembling.streaming import predict_view
from adaptive_nets.ensembling.test_time import average_views, predict_pool
from adaptive_nets.ensembling.views import (
    crop_views,
    make_predictor,
    policy_views,
    unchanged_views,
)

__all__ = [
    "MEASURES",
    "EquivalentBounds",
    "LinearHead",
    "Neighbours",
    "Policy",
    "Retrieval",
    "RunningAverage",
    "SubPolicy",
    "accuracy_rejection_area",
    "adaptive_calibration_error",
    "average_features",
    "average_predictions",
    "average_views",
    "brier_score",
    "calibrated_log_likelihood",
    "calibrated_measures",
    "choose_penalty",
    "crop_views",
    "deep_ensemble_equivalent",
    "equivalent_bounds",
    "error_rate",
    "expected_calibration_error",
    "fit_linear_probe",
    "fit_temperature",
    "greedy_policy_search",
    "interpolate",
    "layer_names",
    "linear_head",
    "load_policy",
    "log_likelihood",
    "make_feature_fn",
    "make_predictor",
    "mean_embedding",
    "nearest_neighbours",
    "neighbour_votes",
    "policy_views",
    "predict_pool",
    "predict_view",
    "retrieval_scores",
    "save_policy",
    "scale_by_temperature",
    "search_policy",
    "static_calibration_error",
    "unchanged_views",
]
