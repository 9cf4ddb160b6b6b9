"""What the sentences of the paper tier are made of: the templates and words of Wang et al. 2022.

A template has gaps for two people {X} and {Y}, for the one of them, {S}, who is named again as the giver, for a place
{P} and an object {O}. It ends where the other one, the indirect object, follows:

    "Then, {X} and {Y} went to the {P}. {S} gave a {O} to"
    ABBA: {X} is the indirect object, {Y} the subject          BABA: {X} is the subject, {Y} the indirect object

The fifteen templates are those of the paper's figure 14 (appendix E) and the five remarks those of its figure 21
(appendix L), as they stand there. The paper's lists of 100 names and 20 places and objects are not printed: the names,
places and objects here are those of the authors' public code, which has 99, 8 and 8, and one name of ours ("Alice").
That code draws from the first seven templates alone unless it is told otherwise; the paper's text speaks of all
fifteen, and so do we.
"""

from __future__ import annotations

TEMPLATES: tuple[str, ...] = (
    "Then, {X} and {Y} went to the {P}. {S} gave a {O} to",
    "Then, {X} and {Y} had a lot of fun at the {P}. {S} gave a {O} to",
    "Then, {X} and {Y} were working at the {P}. {S} decided to give a {O} to",
    "Then, {X} and {Y} were thinking about going to the {P}. {S} wanted to give a {O} to",
    "Then, {X} and {Y} had a long argument, and afterwards {S} said to",
    "After {X} and {Y} went to the {P}, {S} gave a {O} to",
    "When {X} and {Y} got a {O} at the {P}, {S} decided to give it to",
    "When {X} and {Y} got a {O} at the {P}, {S} decided to give the {O} to",
    "While {X} and {Y} were working at the {P}, {S} gave a {O} to",
    "While {X} and {Y} were commuting to the {P}, {S} gave a {O} to",
    "After the lunch, {X} and {Y} went to the {P}. {S} gave a {O} to",
    "Afterwards, {X} and {Y} went to the {P}. {S} gave a {O} to",
    "Then, {X} and {Y} had a long argument. Afterwards {S} said to",
    "The {P} {X} and {Y} went to had a {O}. {S} gave it to",
    "Friends {X} and {Y} found a {O} at the {P}. {S} gave it to",
)
REMARKS: tuple[str, ...] = (
    "{N} had a good day.",
    "{N} was enjoying the situation.",
    "{N} was tired.",
    "{N} enjoyed being with a friend.",
    "{N} was an enthusiast person.",
)
NAMES: tuple[str, ...] = (
    *("Aaron", "Adam", "Alexander", "Alice", "Alicia", "Allison", "Amanda", "Amber", "Amy", "Andrea"),
    *("Andrew", "Angela", "Anthony", "Ashley", "Benjamin", "Bradley", "Brandon", "Brian", "Brittany", "Bryan"),
    *("Charles", "Christina", "Christine", "Christopher", "Cody", "Courtney", "Crystal", "Daniel", "Danielle", "David"),
    *("Dustin", "Elizabeth", "Emily", "Eric", "Erica", "Erin", "Gregory", "Heather", "Jacob", "James"),
    *("Jamie", "Jason", "Jeffrey", "Jennifer", "Jeremy", "Jesse", "Jessica", "John", "Jonathan", "Jose"),
    *("Joseph", "Joshua", "Justin", "Katherine", "Katie", "Kelly", "Kenneth", "Kevin", "Kimberly", "Kristen"),
    *("Kyle", "Laura", "Lauren", "Lindsay", "Lindsey", "Lisa", "Mark", "Mary", "Matthew", "Megan"),
    *("Melissa", "Michael", "Michelle", "Nathan", "Nicholas", "Nicole", "Patrick", "Paul", "Rachel", "Rebecca"),
    *("Richard", "Robert", "Ryan", "Samantha", "Samuel", "Sara", "Sarah", "Scott", "Sean", "Shannon"),
    *("Stephanie", "Stephen", "Steven", "Thomas", "Tiffany", "Timothy", "Travis", "Tyler", "Vanessa", "William"),
)
PLACES: tuple[str, ...] = ("store", "garden", "restaurant", "school", "hospital", "office", "house", "station")
OBJECTS: tuple[str, ...] = ("ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack")
