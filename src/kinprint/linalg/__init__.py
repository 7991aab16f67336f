"""Arrays in, arrays out: spectra, correlations, streamed sums. Knows nothing of models."""

from kinprint.linalg.correlation import distance_correlation, resample, zscore
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.spectrum import (
    effective_rank,
    kept_rank,
    minmax,
    product_singular_values,
    singular_values,
    spectrum_distance,
)

__all__ = [
    "distance_correlation",
    "effective_rank",
    "grouped_output_sum",
    "grouped_query_sum",
    "kept_rank",
    "minmax",
    "product_singular_values",
    "resample",
    "singular_values",
    "spectrum_distance",
    "zscore",
]
