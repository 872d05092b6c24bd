"""Labels from the head's gradient: our solver against the published rules.

    python benchmarks/label_inference.py            # 10 batches a line, about 10 minutes of CPU
    python benchmarks/label_inference.py --quick    # 2 batches a line, about 3 minutes

Share of the label multiset that comes back, and in brackets the share of batches that come back
whole. ORL at 32 px, 40 people; a fresh network, and the same after 12 epochs on photos 1 to 5 of
everybody; the attacked batches are of photos 6 to 10. `distinct` batches show as many people as
images, `repeated` ones are drawn with replacement from half as many people as images.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from statistics import mean

import torch
from torch import Tensor, nn

from fedaudit.attacks.evidence.feature_maps.first_fully_connected import (
    common_direction,
    embedding_span,
    find_first_fully_connected,
)
from fedaudit.attacks.evidence.labels.infer import RULES, infer_labels
from fedaudit.core.observation import ModelSpec
from fedaudit.data.orl import orl
from fedaudit.models.build_network import build
from fedaudit.models.facenet import criterion_of

PEOPLE, EPOCHS = 40, 12
NETWORKS = (
    ("small_cnn", "linear"),
    ("face_pooled", "linear"),
    ("face", "linear"),
    ("face", "linear, no bias"),
    ("face", "cosface"),
    ("face", "arcface"),
)


def network(name: str, head: str) -> nn.Module:
    """A fresh network, its head's bias removed if `head` says so."""
    model = build(ModelSpec(name, {"classes": PEOPLE, "head": head.split(",", 1)[0]}))
    if "no bias" in head:
        model.get_submodule("head").register_parameter("bias", None)
    return model


def train(model: nn.Module, images: Tensor) -> None:
    """12 epochs of SGD at lr 0.05 and batch 20 on photos 1 to 5, in place."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    order = torch.Generator().manual_seed(0)
    own = torch.tensor([10 * p + k for p in range(PEOPLE) for k in range(5)])
    for _ in range(EPOCHS):
        for rows in torch.split(own[torch.randperm(len(own), generator=order)], 20):
            optimizer.zero_grad()
            torch.autograd.backward(criterion_of(model)(model(images[rows]), rows // 10))
            optimizer.step()


def draw(batch: int, kind: str, rng: random.Random) -> tuple[Tensor, list[int]]:
    """Rows of photos and their labels; no photo twice."""
    if kind == "distinct":
        labels = rng.sample(range(PEOPLE), batch)
    else:
        people = rng.sample(range(PEOPLE), max(1, batch // 2))
        labels = rng.sample([p for p in people for _ in range(5)], batch)
    seen: Counter[int] = Counter()
    rows = []
    for label in labels:
        rows.append(10 * label + 5 + seen[label])
        seen[label] += 1
    return torch.tensor(rows), labels


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 batches a line")
    parser.add_argument("--network", help="one network only, such as face")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4, 8, 16], help="batch sizes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = orl(size=32).images
    count = 2 if options.quick else 10
    head = f"{'network':12} {'head':16} {'model':8} {'batch':>5} {'labels':9}"
    print(head + "".join(f"{rule:>21}" for rule in RULES), flush=True)
    for name, kind in NETWORKS:
        if options.network not in (None, name):
            continue
        model = network(name, kind)
        for state in ("fresh", "trained"):
            if state == "trained":
                train(model, images)
            named = dict(model.named_parameters())
            for batch in options.batch:
                for mix in ("distinct", "repeated"):
                    rng = random.Random(f"{batch} {mix}")
                    hits, seconds = defaultdict(list), defaultdict(list)
                    for _ in range(count):
                        rows, labels = draw(batch, mix, rng)
                        loss = criterion_of(model)(model(images[rows]), torch.tensor(labels))
                        gradient = torch.autograd.grad(loss, list(named.values()))
                        target = dict(zip(named, gradient, strict=True))
                        entry = find_first_fully_connected(model, target, batch)
                        common = common_direction(entry) if entry else None
                        span = embedding_span(entry) if entry else None
                        for rule in RULES:
                            started = time.process_time()
                            found = infer_labels(
                                model, target, batch, images.shape[1:], common, span, rule
                            )
                            seconds[rule].append(time.process_time() - started)
                            assert found is not None
                            both = Counter(found.tolist()) & Counter(labels)
                            hits[rule].append(both.total() / batch)
                    cells = [
                        f"{mean(h):.3f} ({mean(x == 1 for x in h):.2f}) {mean(s):4.1f}s"
                        for h, s in ((hits[r], seconds[r]) for r in RULES)
                    ]
                    print(f"{name:12} {kind:16} {state:8} {batch:5} {mix:9}"
                          + "".join(f"{c:>21}" for c in cells), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
