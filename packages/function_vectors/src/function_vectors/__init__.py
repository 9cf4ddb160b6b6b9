"""Function vectors: from pairs of words to a vector that makes a model do the task without examples.

`load_tasks`, `icl_prompts` and `encode` make prompts; `EngineRunner` (or `NNsightRunner`) runs a model on them;
`mean_z`, `indirect_effects`, `top_heads` and `function_vector` give the vector; `score_by_layer` and the `gate` say
what it does, beside the baselines. Start at `function_vectors.vectors` for the method.
"""

from function_vectors.baselines import layer_average, mean_differences, of_another_task, random_heads, random_vector
from function_vectors.decoding import Decoded, Rebuilt, decode, rebuild
from function_vectors.effects import average_indirect_effect, indirect_effects, top_heads
from function_vectors.encoding import Encoded, answer_set, encode, require_single_token
from function_vectors.engine import EngineRunner
from function_vectors.errors import EncodingError, TaskError
from function_vectors.evaluation import natural_text, score, score_by_edit, score_by_k, score_by_layer, whole_answers
from function_vectors.gate import Criterion, Gate, Thresholds, gate, gate_by_task, gate_together
from function_vectors.icl import ICLPrompt, icl_prompts
from function_vectors.nnsight_runner import NNsightRunner
from function_vectors.runners import Head, Runner, StreamEdit, adding, replacing
from function_vectors.scores import Scores
from function_vectors.selection import Choice, answered, choose
from function_vectors.task_vectors import Conflict, conflict, task_vectors
from function_vectors.tasks import Pair, Task, load_task, load_tasks, split
from function_vectors.templates import Template, load_templates
from function_vectors.vector_files import Provenance, VectorFileError, library_versions, load_vector, save_vector
from function_vectors.vectors import (
    FunctionVector,
    composed,
    function_vector,
    head_shares,
    mean_z,
    mean_z_of_right,
    vectors_by_k,
)

__all__ = [
    "Choice",
    "Conflict",
    "Criterion",
    "Decoded",
    "Encoded",
    "EncodingError",
    "EngineRunner",
    "FunctionVector",
    "Gate",
    "Head",
    "ICLPrompt",
    "NNsightRunner",
    "Pair",
    "Provenance",
    "Rebuilt",
    "Runner",
    "Scores",
    "StreamEdit",
    "Task",
    "TaskError",
    "Template",
    "Thresholds",
    "VectorFileError",
    "adding",
    "answer_set",
    "answered",
    "average_indirect_effect",
    "choose",
    "composed",
    "conflict",
    "decode",
    "encode",
    "function_vector",
    "gate",
    "gate_by_task",
    "gate_together",
    "head_shares",
    "icl_prompts",
    "indirect_effects",
    "layer_average",
    "library_versions",
    "load_task",
    "load_tasks",
    "load_templates",
    "load_vector",
    "mean_differences",
    "mean_z",
    "mean_z_of_right",
    "natural_text",
    "of_another_task",
    "random_heads",
    "random_vector",
    "rebuild",
    "replacing",
    "require_single_token",
    "save_vector",
    "score",
    "score_by_edit",
    "score_by_k",
    "score_by_layer",
    "split",
    "task_vectors",
    "top_heads",
    "vectors_by_k",
    "whole_answers",
]
