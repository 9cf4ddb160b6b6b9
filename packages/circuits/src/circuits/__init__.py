"""Circuit primitives for a TransformerLens `TransformerBridge`: what heads attend to and write, and how they compose.

Start at `circuits.weights` for circuits read from weights, `circuits.attribution` for logits taken apart,
`circuits.detectors` for what heads attend to and `circuits.ablation` for what they matter.
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
from circuits.attribution import LogitAttribution, logit_attribution
from circuits.autoencoders import Autoencoder, curved_data, fit_autoencoder, reconstruction_error
from circuits.bridge import Bridge, record
from circuits.composition import (
    CompositionBaseline,
    CompositionScores,
    composition_baseline,
    composition_scores,
    random_composition_scores,
)
from circuits.copying import (
    copying_accuracy,
    copying_accuracy_of_sum,
    copying_ranks,
    copying_scores,
    ov_eigenvalues,
    positive_eigenvalue_share,
)
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
from circuits.diagonal import diagonal_in_top, diagonal_ranks, diagonal_share
from circuits.factored import (
    SVD,
    FactoredMatrix,
    corner,
    diagonal_entries,
    factored,
    frobenius_norm,
    product,
    rows,
    svd,
    trace,
)
from circuits.head_circuits import (
    effective_embedding,
    full_ov_circuit,
    full_qk_circuit,
    normalised_embedding,
    ov_circuit,
    qk_circuit,
)
from circuits.head_outputs import Head
from circuits.lens import logit_lens, logit_lens_top
from circuits.losses import in_context_learning_score, next_token_log_probs
from circuits.path_ablation import path_ablated, path_ablated_head_scores, path_ablated_log_probs
from circuits.path_orders import losses_by_order, losses_by_terms
from circuits.paths import k_composition_circuit, q_composition_circuit, v_composition_circuit
from circuits.patterns import PatternReducer, attention_patterns, reduce_patterns
from circuits.plots import plot_heads, plot_pattern
from circuits.positions import position_and_token_parts, positional_pattern, positional_qk, previous_position_share
from circuits.score_decomposition import AttentionScoreParts, decompose_attention_scores, mean_score_parts, score_labels
from circuits.skip_trigrams import SkipTrigram, top_skip_trigrams
from circuits.subspaces import PCA, fit_pca, orthonormal_basis, project_onto, project_out_of
from circuits.tokens import check_tokens, repeated_random_tokens, segment_length
from circuits.weights import Weights, read_weights

__all__ = [
    "DETECTORS",
    "PCA",
    "SVD",
    "Ablation",
    "AttentionScoreParts",
    "Autoencoder",
    "Bridge",
    "CompositionBaseline",
    "CompositionScores",
    "FactoredMatrix",
    "Head",
    "LogitAttribution",
    "MeanAblation",
    "PatternReducer",
    "ResampleAblation",
    "SkipTrigram",
    "Weights",
    "ZeroAblation",
    "ablate_heads",
    "ablated_log_probs",
    "ablation_scores",
    "ablation_scores_by_sequence",
    "attention_patterns",
    "check_tokens",
    "composition_baseline",
    "composition_scores",
    "copying_accuracy",
    "copying_accuracy_of_sum",
    "copying_ranks",
    "copying_scores",
    "corner",
    "current_token_scores",
    "curved_data",
    "decompose_attention_scores",
    "diagonal_entries",
    "diagonal_in_top",
    "diagonal_ranks",
    "diagonal_share",
    "duplicate_token_scores",
    "effective_embedding",
    "factored",
    "first_token_scores",
    "fit_autoencoder",
    "fit_pca",
    "frobenius_norm",
    "full_ov_circuit",
    "full_qk_circuit",
    "head_scores",
    "head_scores_by_sequence",
    "in_context_learning_score",
    "induction_scores",
    "k_composition_circuit",
    "logit_attribution",
    "logit_lens",
    "logit_lens_top",
    "losses_by_order",
    "losses_by_terms",
    "mean_ablation",
    "mean_score_parts",
    "next_token_log_probs",
    "normalised_embedding",
    "orthonormal_basis",
    "ov_circuit",
    "ov_eigenvalues",
    "path_ablated",
    "path_ablated_head_scores",
    "path_ablated_log_probs",
    "plot_heads",
    "plot_pattern",
    "position_and_token_parts",
    "positional_pattern",
    "positional_qk",
    "positive_eigenvalue_share",
    "prefix_matching_scores",
    "previous_position_share",
    "previous_token_scores",
    "product",
    "project_onto",
    "project_out_of",
    "q_composition_circuit",
    "qk_circuit",
    "random_composition_scores",
    "read_weights",
    "reconstruction_error",
    "record",
    "reduce_patterns",
    "repeated_random_tokens",
    "resample_ablation",
    "rows",
    "score_labels",
    "segment_length",
    "svd",
    "top_skip_trigrams",
    "trace",
    "v_composition_circuit",
]
