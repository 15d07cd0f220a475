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

#: the same by COCO's own category numbers, which have gaps: what networks with 91 classes answer (RF-DETR, the first DETR)
COCO_CATEGORIES: dict[str, tuple[int, ...]] = {
    "person": (1,),
    "bicycle": (2,),
    "car": (3,),
    "motorcycle": (4,),
    "bus": (6,),
    "truck": (8,),
    "animal": tuple(range(16, 26)),
    "bag": (27, 31, 33),
}
