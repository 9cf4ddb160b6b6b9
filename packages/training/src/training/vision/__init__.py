"""Image classification with the training loop: data, augmentation, the residual networks of He et al. 2016."""

from training.vision.augmentation import Augmentation, augment
from training.vision.cifar import load_cifar10
from training.vision.cifar_files import ImageFileError
from training.vision.classification import Classification, error
from training.vision.digits import MissingPackage, load_digits
from training.vision.images import LabelledImages, Split, hold_out
from training.vision.probes import gradient_norms, response_deviations
from training.vision.recipes import Recipe, WarmUp, divided, part, recipe_for
from training.vision.residual import Architecture, ResidualNetwork

__all__ = [
    "Architecture",
    "Augmentation",
    "Classification",
    "ImageFileError",
    "LabelledImages",
    "MissingPackage",
    "Recipe",
    "ResidualNetwork",
    "Split",
    "WarmUp",
    "augment",
    "divided",
    "error",
    "gradient_norms",
    "hold_out",
    "load_cifar10",
    "load_digits",
    "part",
    "recipe_for",
    "response_deviations",
]
