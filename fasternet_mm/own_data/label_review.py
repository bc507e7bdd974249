"""The labels of people's own data that a trained model speaks against: a list of them, and a set to label anew."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..errors import UserError, few
from ..evaluation.coco_results import concatenate, to_coco_results
from ..evaluation.coco_truth import to_truth
from ..files import check_writable, drafting, mark_output, write_atomically
from ..inference.predictor import Predictor
from ..report.suspicious_labels import Suspect, rank_labels
from .layouts.annotated_data import DetectionData, OwnData

LIST, RELABEL = 'suspicious_labels', 'relabel'
"""The names, in the folder of the results, of the list (with .csv and .json) and of the folder of the set."""


@dataclass(frozen=True)
class ReviewedLabel:
    """A suspect, and where it is.

    Attributes:
        split: 'train', 'val' or 'test'.
        image: the image's path in the folder of the data.
        suspect: what may be wrong.
        names: of the classes, by id.
    """

    split: str
    image: str
    suspect: Suspect
    names: dict[int, str]

    def record(self) -> dict[str, Any]:
        """A row of the list; None where label or prediction is missing."""
        label, seen = self.suspect.annotation, self.suspect.detection
        return dict(
            suspicion=round(self.suspect.suspicion, 4),
            kind=self.suspect.kind,
            split=self.split,
            image=self.image,
            annotation_id=label and label['id'],
            label=label and self.names[label['category_id']],
            predicted=seen and self.names[seen['category_id']],
            score=seen and round(seen['score'], 4),
            **dict(zip(('x', 'y', 'width', 'height'), (round(value, 2) for value in self.suspect.box))),
            why=self.suspect.describe(self.names),
        )


def check_reviewable(data: OwnData, predictor: Predictor, out_dir: str) -> None:
    """Raise `UserError` where the model cannot judge these labels, or the results could not be written."""
    if not isinstance(data, DetectionData) or predictor.is_segmenter:
        raise UserError(
            '--model judges the labels of objects, with a detector that was trained on their classes: give the work '
            'directory of such a training, and data with objects'
        )
    unknown = [name for name in data.classes if name not in predictor.classes]
    if unknown:
        raise UserError(
            f'the model does not know the class {unknown[0]!r} ({len(unknown)} of the {len(data.classes)} of the data; '
            f'it knows {few(predictor.classes, 10)}): give a model that was trained on these classes'
        )
    check_writable(out_dir)
    relabel = Path(out_dir, RELABEL)
    if relabel.exists():
        raise UserError(f'{relabel} exists, maybe with your corrections: move it away, or name another --out-dir')


def review_labels(
    data: DetectionData, predictor: Predictor, broken: list[UserError] | None = None
) -> list[ReviewedLabel]:
    """All labels, and the places where one may be missing, the most suspicious first: see `rank_labels`.

    Args:
        data: the labels; each split is judged for itself, since a model is surer of images that it has learned.
        predictor: a detector that knows their classes.
        broken: a list for the errors of images that cannot be predicted; their labels are left out. Default: the first
            error is raised.
    """
    reviewed = []
    images = sum(len(content['images']) for content in data.splits.values())
    with tqdm(total=images, unit='image', desc='looking at labels') as progress:
        for split, content in data.splits.items():
            ids = {category['name']: category['id'] for category in content['categories']}
            label_ids = [ids.get(name, 0) for name in predictor.classes]
            numbers = {str(data.root / image['file_name']): image['id'] for image in content['images']}
            parts = []
            for prediction in predictor.stream([*numbers], broken):
                known = prediction.only(*ids)
                columns = dict(bboxes=known.boxes, scores=known.scores, labels=known.labels)
                instances = {name: torch.from_numpy(values) for name, values in columns.items()}
                parts.append(to_coco_results(instances, numbers.pop(prediction.source), label_ids))
                progress.update()
            left_out = {*numbers.values()}
            if not parts:
                continue
            predicted = [image for image in content['images'] if image['id'] not in left_out]
            truth = to_truth(content | dict(images=predicted), f'{data.root} ({split})')
            files = {image['id']: image['file_name'] for image in predicted}
            reviewed += [
                ReviewedLabel(split, files[suspect.image_id], suspect, truth.category_names)
                for suspect in rank_labels(truth, concatenate(parts))
            ]
    return sorted(reviewed, key=lambda label: -label.suspect.suspicion)


def write_review(
    data: DetectionData, reviewed: Sequence[ReviewedLabel], out_dir: str, suspicion: float
) -> dict[str, int]:
    """Write all labels as a list, and the images of suspicious ones as data of their own.

    The list is ``suspicious_labels.csv`` and ``.json``. The set is ``relabel/``: these images under their paths, and
    for each split a COCO file with all their annotations, under the ids that the list has.

    Args:
        data: the labels.
        reviewed: as from `review_labels`.
        out_dir: folder of the results.
        suspicion: images with a label of at least this suspicion go into the set.

    Returns:
        The number of images in the set, by split.
    """
    mark_output(out_dir)
    records = [label.record() for label in reviewed]
    if records:
        table = io.StringIO()
        writer = csv.DictWriter(table, records[0].keys(), lineterminator='\n')
        writer.writeheader()
        writer.writerows({key: _no_formula(value) for key, value in record.items()} for record in records)
        write_atomically(Path(out_dir, LIST + '.csv'), table.getvalue().encode())
    write_atomically(Path(out_dir, LIST + '.json'), json.dumps(records, indent=1, ensure_ascii=False).encode())
    suspicious = {(label.split, label.image) for label in reviewed if label.suspect.suspicion >= suspicion}
    counts = {split: sum(of == split for of, _ in suspicious) for split in data.splits}
    if suspicious:
        with drafting(out_dir) as draft:
            for split, content in data.splits.items():
                images = [image for image in content['images'] if (split, image['file_name']) in suspicious]
                numbers = {image['id'] for image in images}
                annotations = [a for a in content['annotations'] if a['image_id'] in numbers]
                for image in images:
                    copy = draft / RELABEL / image['file_name']
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(data.root / image['file_name'], copy)
                if images:
                    text = json.dumps(content | dict(images=images, annotations=annotations))
                    write_atomically(draft / RELABEL / f'annotations/{split}.json', text.encode())
            (draft / RELABEL).rename(Path(out_dir, RELABEL))
    return {split: count for split, count in counts.items() if count}


def _no_formula(value: Any) -> Any:
    """A value for a table: a spreadsheet would compute a stranger's name that begins like a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(('=', '+', '-', '@', '\t', '\r')) else value
