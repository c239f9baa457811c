"""Task metrics: how well a model does its job, by the ``kind`` in a model's labels.json.

classes     top-k accuracy              ctc         exact lines and character error rate of text
chain_auc   ROC area of a detector run over a recording, its state fed back
embedding   cosine and rank correlation of sentence vectors, against those of the float model
notes       F1 over frames and pitches  greedy      words spelled right by a decoder run in a loop
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A model and what it said.

    Attributes:
        session: the loaded model.
        names: of the samples.
        samples: inputs, by input name.
        outputs: for each sample, the output that the labels name.
    """

    session: onnxruntime.InferenceSession
    names: Sequence[str]
    samples: Sequence[Mapping[str, Array]]
    outputs: Sequence[Array]


Labels = Mapping[str, Any]
Metrics = dict[str, float]


def measure_task(labels: Labels, folder: Path, run: Run, reference: Run) -> Metrics:
    """The metrics of a model's task; none for a model without labels.

    Args:
        labels: content of labels.json.
        folder: where the files are that it names.
        run: the model to judge.
        reference: the float model, for tasks that have no labels but its answers.
    """
    kind = labels.get("kind")
    if kind == "embedding":
        return compare_embeddings(labels, run, reference)
    return TASKS[kind](labels, folder, run) if kind in TASKS else {}


def measure_classes(labels: Labels, _folder: Path, run: Run) -> Metrics:
    """Share of samples whose class is among the k largest scores."""
    found: dict[int, list[bool]] = {k: [] for k in labels.get("topk", [1])}
    for name, output in zip(run.names, run.outputs, strict=True):
        if name in labels["y"]:
            order = np.argsort(-output.reshape(-1), kind="stable")
            for k, hits in found.items():
                hits.append(labels["y"][name] in order[:k])
    return {f"top{k}": float(np.mean(hits)) for k, hits in found.items()}


def measure_ctc(labels: Labels, folder: Path, run: Run) -> Metrics:
    """Lines read without a fault, and edits needed for each character."""
    charset = (folder / labels["charset"]).read_text(encoding="utf-8").split("\n")
    exact = edits = characters = 0
    for name, output in zip(run.names, run.outputs, strict=True):
        if name not in labels["text"]:
            continue
        truth = labels["text"][name]
        text = decode_ctc(output[0], charset, labels.get("blank", 0)).strip()
        exact += text == truth
        edits += count_edits(text, truth)
        characters += len(truth)
    return {"exact": exact / max(1, len(labels["text"])), "cer": edits / max(1, characters)}


def decode_ctc(scores: Array, charset: Sequence[str], blank: int) -> str:
    """The best path: repeats merged, blanks dropped."""
    text, previous = "", -1
    for index in scores.argmax(-1):
        if index not in (previous, blank):
            text += charset[index] if index < len(charset) else "?"
        previous = index
    return text


def count_edits(text: str, truth: str) -> int:
    """Insertions, deletions and replacements from one string to the other."""
    row = list(range(len(truth) + 1))
    for i, character in enumerate(text, 1):
        above, row = row, [i]
        for j, wanted in enumerate(truth, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (character != wanted)))
    return row[-1]


def measure_chain(labels: Labels, folder: Path, run: Run) -> Metrics:
    """Area under the ROC curve over one recording, frame after frame with the state fed back."""
    archive = np.load(folder / labels["chain"])
    audio, truth = archive["audio"].astype(np.float32) / 32768, archive["y"].astype(bool)
    frame, context = labels["frame"], labels.get("context", 0)
    # The context before the first frame is silence.
    audio = np.concatenate([np.zeros(context, np.float32), audio])
    feeds = {name: np.zeros(shape, np.float32) for name, shape in labels["state_shape"].items()}
    if labels.get("sr_input") in {one.name for one in run.session.get_inputs()}:
        feeds[labels["sr_input"]] = np.array(labels["sr"], np.int64)
    wanted = [labels["output"], *labels["state"].values()]
    scores = np.empty(len(truth))
    for index in range(len(truth)):
        start = index * frame
        feeds[labels["audio_input"]] = audio[start : start + context + frame][None]
        score, *states = run.session.run(wanted, feeds)
        feeds.update(zip(labels["state"], states, strict=True))
        scores[index] = float(score.ravel()[0])
    return {
        "auc": area_under_curve(scores, truth),
        "acc@0.5": float(np.mean((scores > 0.5) == truth)),
    }


def area_under_curve(scores: Array, truth: Array) -> float:
    """Probability that a positive scores above a negative; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives, negatives = int(truth.sum()), int((~truth).sum())
    rank_sum = ranks[truth].sum() - positives * (positives + 1) / 2
    return float(rank_sum / (positives * negatives))


def compare_embeddings(labels: Labels, run: Run, reference: Run) -> Metrics:
    """Cosine of each sentence's vector with float's, and agreement on which pairs are similar."""
    measured, expected = (_unit_vectors(labels, one) for one in (run, reference))
    pairs = np.triu_indices(len(measured), 1)
    ranks = [
        np.argsort(np.argsort((vectors @ vectors.T)[pairs], kind="stable"), kind="stable")
        for vectors in (measured, expected)
    ]
    return {
        "mean_cosine": float(np.mean(np.sum(measured * expected, axis=1))),
        "spearman": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
    }


def _unit_vectors(labels: Labels, run: Run) -> Array:
    vectors = []
    for sample, output in zip(run.samples, run.outputs, strict=True):
        tokens = output.astype(np.float64)
        if tokens.ndim == 3:
            mask = sample[labels["mask"]][..., None].astype(np.float64)
            tokens = (tokens * mask).sum(1) / mask.sum(1)
        vectors.append(tokens[0] / np.linalg.norm(tokens[0]))
    return np.array(vectors)


def measure_notes(labels: Labels, _folder: Path, run: Run) -> Metrics:
    """F1 of (frame, pitch) pairs over a threshold."""
    hits = false_alarms = misses = 0
    for name, output in zip(run.names, run.outputs, strict=True):
        heard = output[0] > labels.get("threshold", 0.3)
        played = np.zeros_like(heard)
        for start, end, pitch in labels["notes"].get(name, []):
            first, last = round(start * labels["fps"]), round(end * labels["fps"])
            played[first:last, pitch - labels["lowest"]] = True
        hits += int(np.sum(heard & played))
        false_alarms += int(np.sum(heard & ~played))
        misses += int(np.sum(~heard & played))
    return {"frame_f1": 2 * hits / max(1, 2 * hits + false_alarms + misses)}


def measure_greedy(labels: Labels, folder: Path, run: Run) -> Metrics:
    """Share of words that the decoder, run in a loop, spells in an accepted way."""
    starts = np.load(folder / labels["starts"])
    hits = 0
    for index, accepted in enumerate(labels["refs"]):
        names = [*labels["static"], *labels["state"]]
        word = decode_greedily(
            labels, run.session, {name: starts[f"{index}/{name}"] for name in names}
        )
        hits += word.strip().lower() in accepted
    return {"top1_in_refs": hits / len(labels["refs"])}


def decode_greedily(
    labels: Labels, session: onnxruntime.InferenceSession, feeds: dict[str, Array]
) -> str:
    """The likeliest character again and again, until the end sign."""
    prefix, text = [labels["bos"]], ""
    wanted = [labels["output"], *labels["state"].values()]
    for step in range(labels["max_len"]):
        feeds[labels["prefix"]] = np.array([prefix], np.int64)
        scores, *states = session.run(wanted, feeds)
        feeds.update(zip(labels["state"], states, strict=True))
        scores = scores[0].copy()
        scores[labels["pad"]] = -np.inf
        if step == 0:
            scores[labels["eos"]] = -np.inf
        best = int(scores.argmax())
        if best == labels["eos"]:
            break
        text += labels["chars"][best]
        prefix.append(best)
    return text


TASKS: Mapping[str | None, Callable[[Labels, Path, Run], Metrics]] = {
    "classes": measure_classes,
    "ctc": measure_ctc,
    "chain_auc": measure_chain,
    "notes": measure_notes,
    "greedy": measure_greedy,
}
