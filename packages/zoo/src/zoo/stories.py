"""The little stories: their words, their latents, questions about them, and the exact scores of any text.

counts = stories.count("the sailor smiled . anna helped ben .")
counts.topic_share("sea"), counts.joyful_share, counts.attitude_share("kind"), counts.grammatical_share
"""

from __future__ import annotations

from zoo.stories_grammar import Latents, draw_latents, tell
from zoo.stories_lexicon import DIMENSIONS, MOODS, NAMES, TOPICS, attitude_words, contraries, mood_words, topic_words
from zoo.stories_questions import StoryQuestion, draw_question, visible
from zoo.stories_scores import StoryCounts, count, total
from zoo.stories_text import Document, header, question_document, story_document, vocabulary

__all__ = [
    "DIMENSIONS",
    "MOODS",
    "NAMES",
    "TOPICS",
    "Document",
    "Latents",
    "StoryCounts",
    "StoryQuestion",
    "attitude_words",
    "contraries",
    "count",
    "draw_latents",
    "draw_question",
    "header",
    "mood_words",
    "question_document",
    "story_document",
    "tell",
    "topic_words",
    "total",
    "visible",
    "vocabulary",
]
