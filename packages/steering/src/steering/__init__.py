"""Steering vectors: extracted from contrasts, added while a model writes, and measured beside their controls.

`activation_addition`, `contrastive` and `between` give vectors; `steered` adds them in passes of one's own, `generate`
while it writes. `steering_sweep`, `choice_sweep`, `topic_test` and `price` say what a vector does and costs, `controls`
what does it as well. Start at `steering.extraction` and `steering.steering` for the method.
"""

from steering.choices import Answers, ChoiceSweep, Gate, GateRow, answers, answers_under, choice_sweep
from steering.controls import Control, Controls, controls, random_like
from steering.errors import SteeringError
from steering.estimators import Estimator
from steering.extraction import ContrastPair, activation_addition, between, contrastive
from steering.fluency import (
    Losses,
    PerplexityRatio,
    TopicTest,
    completion_losses,
    perplexity_ratio,
    text_losses,
    topic_test,
)
from steering.generation import Completions, generate
from steering.gguf_files import read_gguf, write_gguf
from steering.intervals import Interval, Quotient, difference
from steering.logit_bias import logit_bias, mean_effect
from steering.nnsight_steering import nnsight_generate, nnsight_logits
from steering.outcomes import GREEDY, Metric, Outcome, Writing, contains, measured, written
from steering.positions import AfterPrompt, Everywhere, First, Mask, Positions, PromptOnly
from steering.price import Knowledge, NextToken, Price, knowledge, price
from steering.questions import EncodedQuestions, Question, both_orders, encode_questions
from steering.reading import Read
from steering.repeng_form import RepengVector, from_repeng, to_repeng
from steering.separability import Separability, class_activations, separability
from steering.side_by_side import Condition, InRows, written_together
from steering.similarity import cosines_by_layer, layer_cosines, vector_cosines
from steering.steering import Operation, Steer, steered
from steering.sweeps import SteeringSweep, steering_sweep
from steering.texts import continuation, encode, encode_texts
from steering.vector_files import load_vector, save_vector
from steering.vectors import Component, ModelIdentity, SteeringVector

__all__ = [
    "GREEDY",
    "AfterPrompt",
    "Answers",
    "ChoiceSweep",
    "Completions",
    "Component",
    "Condition",
    "ContrastPair",
    "Control",
    "Controls",
    "EncodedQuestions",
    "Estimator",
    "Everywhere",
    "First",
    "Gate",
    "GateRow",
    "InRows",
    "Interval",
    "Knowledge",
    "Losses",
    "Mask",
    "Metric",
    "ModelIdentity",
    "NextToken",
    "Operation",
    "Outcome",
    "PerplexityRatio",
    "Positions",
    "Price",
    "PromptOnly",
    "Question",
    "Quotient",
    "Read",
    "RepengVector",
    "Separability",
    "Steer",
    "SteeringError",
    "SteeringSweep",
    "SteeringVector",
    "TopicTest",
    "Writing",
    "activation_addition",
    "answers",
    "answers_under",
    "between",
    "both_orders",
    "choice_sweep",
    "class_activations",
    "completion_losses",
    "contains",
    "continuation",
    "contrastive",
    "controls",
    "cosines_by_layer",
    "difference",
    "encode",
    "encode_questions",
    "encode_texts",
    "from_repeng",
    "generate",
    "knowledge",
    "layer_cosines",
    "load_vector",
    "logit_bias",
    "mean_effect",
    "measured",
    "nnsight_generate",
    "nnsight_logits",
    "perplexity_ratio",
    "price",
    "random_like",
    "read_gguf",
    "save_vector",
    "separability",
    "steered",
    "steering_sweep",
    "text_losses",
    "to_repeng",
    "topic_test",
    "vector_cosines",
    "write_gguf",
    "written",
    "written_together",
]
