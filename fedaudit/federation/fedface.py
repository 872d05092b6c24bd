"""FedFace: one identity a client, a face template on the server."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.claims import Gap
from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.errors import DataError
from fedaudit.core.observation import LocalTraining, ModelSpec
from fedaudit.core.shared import ClassEmbeddings, Returns
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split, require_one_client_each
from fedaudit.defenses.composition import releasing
from fedaudit.defenses.settings import require
from fedaudit.federation.class_rows import HEAD, ROWS, collect, own_rows, sum_with_rows
from fedaudit.federation.local_training import is_withheld, train_locally
from fedaudit.federation.pretraining import pretrain
from fedaudit.models.build_network import build
from fedaudit.models.facenet import require_face_net
from fedaudit.models.method_heads import spec_with_head, without_head

TEMPLATE = Gap("class_embeddings", "in the first round it is the mean feature of the photos")
PULLED = Gap("update", "it pulls to the mean feature of the photos, which carries no noise")


@dataclass(frozen=True, kw_only=True)
class FedFace:
    """Clients of one person each pull features to their class embedding; the server spreads those.

    Aggarwal et al. (CVPR Workshops 2021, arXiv 2104.03008). The server starts from a network that
    CosFace trained on public faces. In its first round a client sets its class embedding to the
    mean feature of its photos; its loss is mean relu(m − cos θ)². The server averages the backbones
    and moves the class embeddings down the spreadout regularizer, the mean over pairs of
    relu(cos(w_i, w_j) − v)²; it alone moves them, as in the official code. How many such steps a
    round the server takes is our choice. Mean features of a pre-trained network all point the same
    way (cosine 0.5 between people, 0.95 to their own), and the pull alone is content with that:
    what a client learns is where its embedding was spread to. Both terms are squares of small
    numbers, so they want greater rates than CosFace does (`benchmarks/methods.py`).

    Shared: the weight delta of the backbone (everything but the head) and the number of images; and
    one class embedding, which in round 1 *is* the mean feature of the client's photos, and later
    what the server sent.

    Args:
        margin: m, the cosine to their class embedding from which on features are not pulled;
            in (0, 1].
        spread_margin: v, the cosine between class embeddings below which they are not pushed
            apart; in [-1, 1).
        spread_lr: Learning rate of the server's spreadout steps; ≥ 0.
        spread_steps: Spreadout steps a round; ≥ 0.
        public: Registered face set for the pre-training. Invented people of controls are made of
            OpenPeople's; reports say so.
        pretrain_steps: Steps of pre-training; 0 starts at random.
        secure: Put a secure aggregator between clients and server: it sees the sums of the deltas
            and of the matrices of class embeddings, in which each client fills its own row (ours;
            such sums hide no row, `attacks.templates.read_templates`).
    """

    margin: float = 0.9
    spread_margin: float = 0.3
    spread_lr: float = 50.0
    spread_steps: int = 10
    public: str = "openpeople"
    pretrain_steps: int = 300

    secure: bool = False

    withheld: ClassVar[tuple[str, ...]] = (HEAD,)
    sends = staticmethod(own_rows)
    aggregate = staticmethod(sum_with_rows)

    def __post_init__(self) -> None:
        require(0 < self.margin <= 1, "margin must lie in (0, 1]", self.margin)
        apart = self.spread_margin
        require(-1 <= apart < 1, "spread_margin must lie in [-1, 1)", apart)
        if self.spread_lr < 0 or self.spread_steps < 0 or self.pretrain_steps < 0:
            raise ValueError("spread_lr, spread_steps and pretrain_steps must be ≥ 0")

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse a split that is not one person a client and one client a person."""
        require_one_client_each("FedFace", split)
        for client, people in enumerate(split.clients):
            if len(people) != 1:
                raise DataError(
                    f"FedFace has one person a client, and client {client} has {len(people)} "
                    f"({people[0]}, {people[1]} …). Write [federation] clients = "
                    f"{len(split.people)} for the {len(split.people)} people of {faces.name} who "
                    "train, or use method fedgc."
                )

    def network(self, spec: ModelSpec, split: Split) -> ModelSpec:
        """The network with FedFace's loss."""
        return spec_with_head(spec, "pull", {"margin": self.margin})

    def start(self, spec: ModelSpec, server: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """A network pretrained on public faces, with the head that the study's network has."""
        own = without_head(spec)
        anybody = {k: v for k, v in own.arguments.items() if k != "classes"}
        before = replace(own, arguments=anybody)
        return pretrain(before, server, public=self.public, steps=self.pretrain_steps, seed=seed)

    def client(self, task: ClientTask) -> ClientReturn:
        """Set the class embedding if there is none yet, train the backbone, share both."""
        public = ROWS in task.before  # sent by the server, and no function of this round's photos
        row = task.before.get(ROWS, task.kept.get(ROWS))
        if row is None:
            row = _mean_feature(task)
        withheld = (*task.withheld, HEAD)
        before = {**task.before, ROWS: row}
        reply = train_locally(replace(task, before=before, kept={}, withheld=withheld))
        if not public:
            reply = replace(reply, unnoised=(*reply.unnoised, PULLED))
        if is_withheld(ROWS, task.withheld):  # a defense keeps it on the device
            return replace(reply, kept={**reply.kept, ROWS: row})
        payload = ClassEmbeddings(row, task.owned)
        if public:
            return releasing(reply, payload)
        gaps = (*reply.unnoised, TEMPLATE)
        return replace(reply, shared=(*reply.shared, payload), unnoised=gaps)

    def absorb(
        self, server: Mapping[str, Tensor], returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """The class embeddings after the server's spreadout step."""
        embeddings = collect(server, returns)
        return {ROWS: self.spread(embeddings[0])} if embeddings else {}

    def spread(self, rows: Tensor) -> Tensor:
        """Class embeddings `[P, D]` after the server's gradient steps on the spreadout."""
        for _ in range(self.spread_steps):
            rows = rows.detach().requires_grad_()
            (slope,) = torch.autograd.grad(spreadout(rows, self.spread_margin), rows)
            rows = rows - self.spread_lr * slope
        return rows.detach()


def spreadout(rows: Tensor, margin: float) -> Tensor:
    """Mean over i ≠ j of relu(cos(w_i, w_j) − margin)² for `rows [P, D]`; 0 of a single row."""
    unit = F.normalize(rows, dim=1)
    pairs = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return F.relu((unit @ unit.T)[pairs] - margin).square().sum() / max(1, int(pairs.sum()))


@torch.no_grad()
def _mean_feature(task: ClientTask) -> Tensor:
    """`[1, D]` the normalized mean of the photos' unit embeddings under the global network."""
    model = require_face_net(build(task.model, task.before), "FedFace").eval()
    features = torch.cat([model.embed(part) for part in torch.split(task.images, 64)])
    return F.normalize(features.mean(0, keepdim=True), dim=1)
