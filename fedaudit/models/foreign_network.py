"""Split any network into the parts that attacks know: body, embedding, head.

`torch.fx` finds the first fully connected layer, and cuts the network before and behind it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from fedaudit.models.facenet import Criterion, FaceNet, criterion_of


class ForeignFaceNet(FaceNet):
    """Any network as a `FaceNet`; its parameters keep their names and are not copied.

    The first fully connected layer is the embedding, what runs before it the body, what runs after
    it the head. Where nothing runs after it, it is the head and there is no embedding.

    Args:
        network: Its modules are shared, not copied.
        parts: Body, embedding and head, made of its modules.
        entry: Name of the first fully connected layer.
        averaged: The layer's input is the average of a map.
    """

    entry: str
    own_loss: Criterion

    def __init__(
        self,
        network: nn.Module,
        parts: tuple[nn.Module, nn.Module, nn.Module],
        entry: str,
        averaged: bool,
    ) -> None:
        nn.Module.__init__(self)
        children = dict(network.named_children())
        for name, child in children.items():
            self._modules[name] = child  # `add_module` refuses the name `features`
        for name, parameter in network.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        # Not registered, so that each parameter has one name, the network's own.
        body, embedding, head = parts
        for name, part in (("body", body), ("embedding", embedding), ("head", head)):
            child = children.get(name, part)
            object.__setattr__(self, name, part if child is part else _Alias(child, part))
        if "features" in children:
            object.__setattr__(self, "features", _Alias(children["features"], self.features))
        object.__setattr__(self, "pool", "average" if averaged else "flatten")
        object.__setattr__(self, "own_loss", criterion_of(network))
        object.__setattr__(self, "entry", f"{entry}.weight")

    @property
    def first_fc_name(self) -> str:
        """Name of the weight of the first fully connected layer."""
        return self.entry

    def features(self, images: Tensor) -> Tensor:
        """What enters the first fully connected layer, `[N, F]`."""
        maps: Tensor = self.body(images)
        return maps.flatten(1)

    def criterion(self, scores: Tensor, labels: Tensor) -> Tensor:
        """The network's own loss, else cross-entropy."""
        loss: Tensor = self.own_loss(scores, labels)
        return loss


class _Alias(nn.Module):
    """A part under the name of one of the network's children: it has that child's parameters."""

    def __init__(self, child: nn.Module, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        # The same dictionaries: what a functional call replaces in one is replaced in the other.
        for table in ("_modules", "_parameters", "_buffers"):
            setattr(self, table, getattr(child, table))
        object.__setattr__(self, "compute", compute)

    def forward(self, x: Tensor) -> Tensor:
        """What the part computes."""
        outputs: Tensor = self.compute(x)  # type: ignore[operator]
        return outputs


def adopt(network: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """`network` as a `FaceNet`, or as it is where it cannot be cut in three.

    It cannot where `torch.fx` cannot follow its forward pass, where it has no fully connected
    layer, where something passes the first one by, where parameters are used outside of a layer
    (parts would keep theirs when a functional call replaces them), or where it takes one image at a
    time.

    Args:
        network: From images `[N, C, H, W]` in [0, 1] to scores `[N, K]`.
        image_shape: `(C, H, W)`.
    """
    if isinstance(network, FaceNet):
        return network
    training = network.training
    try:
        # In training mode dropout as a function would be kept in the graph, whatever comes later.
        graph = fx.Tracer().trace(network.eval())
    except Exception:  # whatever a stranger's forward pass raises when it is given a proxy
        return network
    finally:
        network.train(training)
    modules = dict(network.named_modules())
    calls = [n for n in graph.nodes if n.op == "call_module"]
    entry = next((n for n in calls if isinstance(modules[n.target], nn.Linear)), None)
    if entry is None or not _is_cut(graph, entry):
        return network
    own = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    if any(node.op == "get_attr" and node.target in own for node in graph.nodes):
        return network
    name = str(entry.target)
    body = _part(network, graph, None, entry.args[0])
    output = next(n for n in graph.nodes if n.op == "output")
    last = output.args[0] is entry
    head = modules[name] if last else _part(network, graph, entry, output.args[0])
    embedding = nn.Identity() if last else modules[name]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    pools = bool(convolutions) and modules[name].in_features == convolutions[-1].out_channels
    face_net = ForeignFaceNet(network, (body, embedding, head), name, pools)
    face_net.train(training)
    return face_net if _agrees(network, face_net, image_shape) else network


def _is_cut(graph: fx.Graph, entry: fx.Node) -> bool:
    """Whether all that runs after the layer depends on what runs before through it alone."""
    after = {entry}
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node is not entry and any(i in after for i in inputs):
            if any(i not in after and i.op != "get_attr" for i in inputs):
                return False
            after.add(node)
    return any(node.op == "output" and node in after for node in graph.nodes)


def _part(network: nn.Module, graph: fx.Graph, start: fx.Node | None, stop: object) -> nn.Module:
    """A module that computes `stop` from `start` or the images, by the network's own modules."""
    assert isinstance(stop, fx.Node)
    ancestors = _ancestors(stop, start)
    graph_of_part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = graph_of_part.placeholder("x")
    for node in graph.nodes:
        if node in ancestors and node is not start:
            copies[node] = graph_of_part.node_copy(node, copies.__getitem__)
    graph_of_part.output(copies[stop])
    return fx.GraphModule(network, graph_of_part)


def _ancestors(node: fx.Node, start: fx.Node | None) -> set[fx.Node]:
    ancestors: set[fx.Node] = set()
    queue: list[fx.Node] = [node]
    while queue:
        one = queue.pop()
        if one not in ancestors:
            ancestors.add(one)
            queue += [] if one is start else one.all_input_nodes
    return ancestors


@torch.no_grad()
def _agrees(network: nn.Module, face_net: nn.Module, shape: Sequence[int]) -> bool:
    """Whether both give the same scores, two images and one: a trace may have frozen a size."""
    training = network.training
    network.eval()
    same = True
    try:
        like = next(network.parameters())
        for count in (2, 1):
            images = torch.linspace(0, 1, count * shape[0] * shape[1] * shape[2]).to(like)
            images = images.view(count, *shape)
            same &= torch.allclose(network(images), face_net(images), atol=1e-5)
            same &= len(face_net.features(images)) == count  # type: ignore[operator]
    except Exception:  # a frozen size, or an image size that the network does not take
        same = False
    network.train(training)
    face_net.train(training)
    return same
