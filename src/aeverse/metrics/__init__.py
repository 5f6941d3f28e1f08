"""Figures that judge a result on data that the model did not see."""

from aeverse.metrics._deviance import deviance_explained

__all__ = ["deviance_explained"]
