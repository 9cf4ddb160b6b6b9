"""Circuit primitives for a TransformerLens `TransformerBridge`: head detectors, losses and head ablation.

Start at `circuits.detectors` for what heads attend to and `circuits.ablation` for what they matter.
"""

from circuits.ablation import (
    Ablation,
    MeanAblation,
    ResampleAblation,
    ZeroAblation,
    ablate_heads,
    ablated_log_probs,
    ablation_scores,
    ablation_scores_by_sequence,
    mean_ablation,
    resample_ablation,
)
from circuits.bridge import Bridge
from circuits.detectors import (
    DETECTORS,
    current_token_scores,
    duplicate_token_scores,
    first_token_scores,
    head_scores,
    head_scores_by_sequence,
    induction_scores,
    prefix_matching_scores,
    previous_token_scores,
)
from circuits.head_outputs import Head
from circuits.losses import in_context_learning_score, next_token_log_probs
from circuits.patterns import PatternReducer, attention_patterns, reduce_patterns
from circuits.tokens import check_tokens, repeated_random_tokens, segment_length
from circuits.weights import Weights, read_weights

__all__ = [
    "DETECTORS",
    "Ablation",
    "Bridge",
    "Head",
    "MeanAblation",
    "PatternReducer",
    "ResampleAblation",
    "Weights",
    "ZeroAblation",
    "ablate_heads",
    "ablated_log_probs",
    "ablation_scores",
    "ablation_scores_by_sequence",
    "attention_patterns",
    "check_tokens",
    "current_token_scores",
    "duplicate_token_scores",
    "first_token_scores",
    "head_scores",
    "head_scores_by_sequence",
    "in_context_learning_score",
    "induction_scores",
    "mean_ablation",
    "next_token_log_probs",
    "prefix_matching_scores",
    "previous_token_scores",
    "read_weights",
    "reduce_patterns",
    "repeated_random_tokens",
    "resample_ablation",
    "segment_length",
]
