"""Explanations as a project that ViRelAy opens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import view
from ..errors import TargetError
from ..explanation import Explanation
from ..explanation.drawn import input_of
from ..extra import extra
from ..targets import scores

Array = npt.NDArray[Any]


def to_virelay(
    explanations: Explanation | Iterable[Explanation],
    folder: str | PathLike[str],
    *,
    labels: Sequence[int] | Tensor | Array | None = None,
    name: str = "relprop",
    wrt: str | int | None = None,
) -> Path:
    """Write explanations of images as a project for ViRelAy: ``virelay FOLDER/project.yaml``.

    The folder holds ``attribution.h5`` (``attribution`` [N, C, H, W], ``prediction`` [N, K], ``label`` [N], as
    ViRelAy's reader takes them, and CoRelAy's pipelines), ``dataset.h5`` (``data``, the inputs stretched to uint8, and
    ``label``), ``label-map.json`` and ``project.yaml``.

    Args:
        explanations: one, or one batch after the other; only one is held in memory at a time.
        folder: which is made if it is not there. Files of these names in it are written anew.
        labels: the true class of every sample, [N]; by default the class that was explained.
        name: of the project.
        wrt: name or position of the input, if several have relevance.

    Returns:
        The path of ``project.yaml``.

    Raises:
        ValueError: if relevance is not that of images, there are several targets, or labels do not fit.
        TargetError: if the output is no [N, K], or no class was explained and ``labels`` are not given.
        ImportError: if the extra ``relprop[virelay]`` is not installed.
        OSError: if a file cannot be written.
    """
    with extra("virelay", "the files of ViRelAy need h5py"):
        import h5py
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    batches = [explanations] if isinstance(explanations, Explanation) else explanations
    true = None if labels is None else np.asarray(labels)
    done, is_true, classes, size, rules = 0, True, [], (0, 0), ""
    with h5py.File(folder / "attribution.h5", "w") as attributions, h5py.File(folder / "dataset.h5", "w") as data:
        for explanation in batches:
            found, photos = _images(explanation, wrt)
            part = _explained_classes(explanation) if true is None else true[done : done + len(found)]
            if len(part) != len(found):
                raise ValueError(f"there are {len(part) + done} labels, and more samples")
            is_true &= true is not None and _is(explanation.target, part)
            _append(attributions, attribution=found, prediction=_predictions(explanation), label=part)
            _append(data, data=photos, label=part)
            width, done = attributions["prediction"].shape[1], done + len(found)
            classes, rules = [explanation.class_name(i) for i in range(width)], explanation.plan.title
            size = photos.shape[2:]
    if not done:
        raise ValueError("there are no explanations to write")
    if true is not None and len(true) != done:
        raise ValueError(f"there are {len(true)} labels for {done} samples")
    _describe(folder, name, classes, size, rules, strategy="true_label" if is_true else "predicted_label")
    return folder / "project.yaml"


def _images(explanation: Explanation, wrt: str | int | None) -> tuple[Array, Array]:
    """Relevance, and what it is of as bytes."""
    if explanation.several:
        raise ValueError("ViRelAy shows one target for each sample: write one folder for each of explanation.parts")
    _, relevance, given = input_of(explanation, wrt)
    if relevance.ndim != 4:
        raise ValueError(f"ViRelAy shows images [N, C, H, W], and relevance is of shape {list(relevance.shape)}")
    photos = np.rint(255 * view.stretch(given.detach())).astype(np.uint8)
    return relevance.detach().float().cpu().numpy(), photos


def _explained_classes(explanation: Explanation) -> Array:
    target = explanation.target
    if isinstance(target, int) and not isinstance(target, bool):
        return np.full(len(explanation), target)
    if isinstance(target, Tensor) and target.ndim == 1 and len(target) == len(explanation):
        return target.cpu().numpy()
    raise TargetError(f"explained was {explanation.name()}, which is no class: give the true classes as labels=.")


def _is(target: Any, labels: Array) -> bool:
    """Whether the true classes were explained."""
    return isinstance(target, (int, Tensor)) and np.array_equal(np.broadcast_to(target, labels.shape), labels)


def _predictions(explanation: Explanation) -> Array:
    found = scores(explanation.output)
    if found.ndim != 2:
        raise TargetError(f"ViRelAy takes one score for each class, an output [N, K], not {list(found.shape)}.")
    return found.detach().to("cpu", torch.float32).numpy()


def _append(file: Any, **parts: Array) -> None:
    """Add samples to the datasets of a file; labels are uint16, which is what ViRelAy looks for."""
    for key, part in parts.items():
        part = part.astype(np.uint16) if key == "label" else part
        if key not in file:
            file.create_dataset(key, data=part, maxshape=(None, *part.shape[1:]), chunks=(1, *part.shape[1:]))
            continue
        if file[key].shape[1:] != part.shape[1:]:
            raise ValueError(f"{key}: samples of {list(file[key].shape[1:])} cannot lie with {list(part.shape[1:])}")
        file[key].resize(len(file[key]) + len(part), axis=0)
        file[key][-len(part) :] = part


def _describe(
    folder: Path, name: str, classes: Sequence[str], size: Sequence[int], rules: str, *, strategy: str
) -> None:
    """The project and its classes. JSON is YAML, too."""
    labels = [{"index": i, "word_net_id": f"c{i:08}", "name": c} for i, c in enumerate(classes)]
    sampling = {"up_sampling_method": "none", "down_sampling_method": "none"}
    dataset = {"name": name, "type": "hdf5", "path": "dataset.h5", "input_width": size[1], "input_height": size[0]}
    project = {
        "name": name,
        "model": name,
        "label_map": "label-map.json",
        "dataset": {**dataset, **sampling},
        "attributions": {
            "attribution_method": f"LRP, {rules}",
            "attribution_strategy": strategy,
            "sources": ["attribution.h5"],
        },
        "analyses": [],
    }
    (folder / "label-map.json").write_text(json.dumps(labels, indent=1), encoding="utf-8")
    (folder / "project.yaml").write_text(json.dumps({"project": project}, indent=1), encoding="utf-8")
