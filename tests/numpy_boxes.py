"""Boxes, suppression and alignment as plain NumPy loops in float64, the oracles of the tests."""

from __future__ import annotations

import numpy as np


def box_area(box):
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def pair_iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    common = max(height, 0.0) * max(width, 0.0)
    union = box_area(a) + box_area(b) - common
    return common / union if box_area(a) > 0 and box_area(b) > 0 else 0.0


def iou_matrix(a, b):
    return np.array([[pair_iou(x, y) for y in b] for x in a]).reshape(len(a), len(b))


def suppressed(boxes, scores, threshold, limit):
    """Returns the indices that greedy suppression keeps, by decreasing score."""
    order = sorted(range(len(boxes)), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        if len(kept) == limit:
            break
        if all(pair_iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def fast_suppressed(boxes, scores, threshold, limit):
    """Returns the same, with one row of overlaps at a time."""
    boxes = np.asarray(boxes, np.float64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas, alive, kept = sides[:, 0] * sides[:, 1], np.ones(len(boxes), bool), []
    for i in np.argsort(-np.asarray(scores, np.float64), kind="stable"):
        if len(kept) == limit:
            break
        if not alive[i]:
            continue
        kept.append(int(i))
        start = np.maximum(boxes[i, :2], boxes[:, :2])
        end = np.minimum(boxes[i, 2:], boxes[:, 2:])
        common = np.prod(np.maximum(end - start, 0), axis=1)
        union = areas[i] + areas - common
        share = np.divide(common, union, out=np.zeros(len(boxes)), where=union > 0)
        alive &= share <= threshold
    return kept


def bilinear(feature, y, x):
    """Returns the value at (y, x) of positions at whole numbers, 0 further than 1 outside."""
    height, width = feature.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(feature.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = (1 - dx) * feature[top, left] + dx * feature[top, right]
    lower = (1 - dx) * feature[bottom, left] + dx * feature[bottom, right]
    return (1 - dy) * upper + dy * lower


def aligned_regions(feature, boxes, size, scale, ratio, aligned=True):
    rows, columns = size
    out = np.zeros((len(boxes), rows, columns, feature.shape[2]))
    offset = 0.5 if aligned else 0.0
    for r, (y1, x1, y2, x2) in enumerate(np.asarray(boxes, np.float64) * scale - offset):
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        for i in range(rows):
            for j in range(columns):
                samples = [
                    bilinear(
                        feature,
                        y1 + height / rows * (i + (a + 0.5) / ratio),
                        x1 + width / columns * (j + (b + 0.5) / ratio),
                    )
                    for a in range(ratio)
                    for b in range(ratio)
                ]
                out[r, i, j] = np.mean(samples, axis=0)
    return out


def average_precision50(truths, found, classes):
    """Returns the mean over classes of the area under the precision-recall curve at IoU 0.5.

    Args:
        truths: per image, (boxes [G, 4], labels [G]).
        found: per image, (boxes [D, 4], labels [D], scores [D]).
        classes: number of classes.
    """
    values = []
    for label in range(classes):
        rows, total = [], 0
        for (boxes, labels), (guesses, kinds, scores) in zip(truths, found, strict=True):
            own, used = boxes[labels == label], set()
            total += len(own)
            chosen = np.flatnonzero(kinds == label)
            for k in chosen[np.argsort(-scores[chosen], kind="stable")]:
                overlaps = [0.0 if g in used else pair_iou(guesses[k], b)
                            for g, b in enumerate(own)]  # fmt: skip
                best = int(np.argmax(overlaps)) if overlaps else -1
                hit = best >= 0 and overlaps[best] >= 0.5
                if hit:
                    used.add(best)
                rows.append((scores[k], hit))
        if not total:
            continue
        rows.sort(key=lambda row: -row[0])
        hits = np.cumsum([hit for _, hit in rows])
        precision = hits / np.arange(1, len(rows) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        steps = np.diff(np.concatenate([[0], hits])) / total
        values.append(float(np.sum(steps * envelope)))
    return float(np.mean(values))
