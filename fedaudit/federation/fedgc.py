"""FedGC: the server corrects the gradient of class embeddings that clients train alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fedaudit.core.client import ClientReturn, ClientTask
from fedaudit.core.observation import LocalTraining
from fedaudit.core.shared import ClassEmbeddings, Returns
from fedaudit.data.face_set import FaceSet
from fedaudit.data.splits import Split, require_one_client_each
from fedaudit.defenses.composition import releasing
from fedaudit.federation.class_rows import HEAD, ROWS, collect, own_rows, sum_with_rows
from fedaudit.federation.local_training import is_withheld, train_locally


@dataclass(frozen=True, kw_only=True)
class FedGC:
    """Clients train backbone and their own classes; a softmax regularizer joins the classes.

    Niu & Deng (AAAI 2022, arXiv 2112.07246): FedGC, federated learning with gradient correction.
    The regularizer is as recalled in the literature: the sum over class embeddings w of
    −log(e^{w·ŵ} / (e^{w·ŵ} + Σ e^{z·ŵ})), z the class embeddings of *other* clients, ŵ a copy of w
    that no gradient enters. Here embeddings are of unit length and w·ŵ is multiplied by a scale,
    because the heads are cosine heads: an own row's gradient is then zero, and the correction only
    pushes it away from the rows of others. The server moves W to W − λη ∇Reg, η the learning rate.
    With few people for many dimensions rows are at right angles from the start, and a scale of 16
    leaves nothing to correct; at 1 the correction still takes what all rows share out of them.
    Steps λη of about 10 do that; larger ones drown what clients learned (`benchmarks/methods.py`).

    Shared: the weight delta of the backbone (everything but the head's weight rows) and the number
    of images; and the client's class embeddings after local training, one a person.

    Args:
        strength: λ of the correction; 0 is FedAvg with heads that clients train alone; ≥ 0.
        scale: Inverse temperature of the regularizer's softmax; > 0.
        secure: Put a secure aggregator between clients and server: it sees the sums of the deltas
            and of the matrices of class embeddings, in which each client fills its own rows (ours;
            such sums hide no row, `attacks.templates.read_templates`).
    """

    strength: float = 100.0
    scale: float = 1.0

    secure: bool = False

    withheld: ClassVar[tuple[str, ...]] = (HEAD,)
    sends = staticmethod(own_rows)
    aggregate = staticmethod(sum_with_rows)

    def __post_init__(self) -> None:
        if self.strength < 0 or self.scale <= 0:
            raise ValueError(
                f"strength must be ≥ 0 and scale > 0, not {self.strength} and {self.scale}"
            )

    def check(self, faces: FaceSet, split: Split) -> None:
        """Refuse people at several clients: the correction pushes their classes apart."""
        require_one_client_each("FedGC", split)

    def client(self, task: ClientTask) -> ClientReturn:
        """Train everything, share the backbone's delta and the class embeddings."""
        reply = train_locally(replace(task, withheld=(*task.withheld, HEAD)))
        if is_withheld(ROWS, task.withheld):  # a defense keeps them on the device
            return reply
        rows = ClassEmbeddings(reply.kept[ROWS], task.owned)
        local = {name: value for name, value in reply.kept.items() if name != ROWS}
        return replace(releasing(reply, rows), kept=local)

    def absorb(
        self, server: Mapping[str, Tensor], returns: Returns, training: LocalTraining
    ) -> dict[str, Tensor]:
        """The class embeddings of all clients after the server's gradient correction."""
        embeddings = collect(server, returns)
        if embeddings is None:
            return {}
        rows, owner = embeddings
        return {ROWS: rows - self.strength * training.lr * self.correction(rows, owner)}

    def correction(self, rows: Tensor, owner: Tensor) -> Tensor:
        """∇Reg `[P, D]` at the class embeddings `rows [P, D]`, whose clients are `owner [P]`."""
        rows = rows.detach().requires_grad_()
        unit = F.normalize(rows, dim=1)
        similar = self.scale * unit.detach() @ unit.T
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        colleagues = (owner[:, None] == owner[None, :]).to(rows.device) & ~itself
        logits = similar.masked_fill(colleagues, float("-inf"))
        total = F.cross_entropy(
            logits, torch.arange(len(rows), device=rows.device), reduction="sum"
        )
        (slope,) = torch.autograd.grad(total, rows)
        return slope
