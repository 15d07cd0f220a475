"""COCO's 80 classes and ours: the one table between them."""

from __future__ import annotations

#: COCO-80 classes (0-based, in COCO's usual order) of each of our labels
COCO_CLASSES: dict[str, tuple[int, ...]] = {
    "person": (0,),
    "bicycle": (1,),
    "car": (2,),
    "motorcycle": (3,),
    "bus": (5,),
    "truck": (7,),
    "animal": tuple(range(14, 24)),
    "bag": (24, 26, 28),
}
