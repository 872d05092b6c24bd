"""Rebuild a photo from one update of a library's network, as it is and without any setting.

python examples/attack_your_network.py                    # torchvision's ResNet-18: 25 CPU s
python examples/attack_your_network.py timm:vit_tiny_patch16_224                # 2 CPU s
"""

import sys

import torch
from torch.nn.functional import cross_entropy

import fedaudit
from fedaudit.data.openpeople import openpeople
from fedaudit.models.library_networks import from_library
from fedaudit.scoring.image_metrics import SSIM

torch.manual_seed(0)
name = sys.argv[1] if len(sys.argv) > 1 else "torchvision:resnet18"
model = from_library(name=name, arguments={"num_classes": 10}, image_size=64).eval()  # or your own
photo, label = openpeople(size=64).images[:1], torch.tensor([3])  # somebody who does not exist

gradients = torch.autograd.grad(cross_entropy(model(photo), label), list(model.parameters()))
update = dict(zip(dict(model.named_parameters()), gradients, strict=True))  # what a client sends

rebuilt = fedaudit.attack(model, update, image_shape=(3, 64, 64))
similarity = SSIM()(rebuilt.images, photo).item()
print(f"label {rebuilt.labels.item()}, SSIM {similarity:.2f} in {rebuilt.seconds:.0f} CPU s")
