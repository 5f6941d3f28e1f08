"""Figures that judge a result on data that the model did not see, and embeddings by what is known of their samples."""

from aeverse.metrics._batches import batch_score
from aeverse.metrics._biology import biology_score
from aeverse.metrics._clusters import cluster_deviance, default_clusters
from aeverse.metrics._deviance import deviance_explained
from aeverse.metrics._labels import cluster_agreement, knn_accuracy, linear_probe
from aeverse.metrics._structure import trustworthiness, variance_explained

__all__ = [
    "deviance_explained",
    "variance_explained",
    "knn_accuracy",
    "linear_probe",
    "cluster_agreement",
    "default_clusters",
    "cluster_deviance",
    "biology_score",
    "batch_score",
    "trustworthiness",
]
