"""A classifier that learns along with an enhancer teaches it through the gradient gate."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from MedEnhanceLib.training.gradprom.gate import GradientGate

torch.manual_seed(0)
enhancer = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
classifier = nn.Sequential(nn.Conv2d(1, 4, 5, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
optimizer = torch.optim.Adam(enhancer.parameters(), lr=1e-2)
optimizer_of_task = torch.optim.Adam(classifier.parameters(), lr=1e-2)
gate = GradientGate(warm_up=20)


def draw_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw noisy images, clean ones, and whether there is a spot in them."""
    spot = torch.randint(0, 2, (16,))
    clean = torch.zeros(16, 1, 16, 16)
    clean[:, :, 4:12, 4:12] = 0.5
    clean[:, :, 6:10, 6:10] += 0.5 * spot[:, None, None, None]
    return clean + 0.3 * torch.randn_like(clean), clean, spot


for _step in range(150):
    noisy, clean, spot = draw_batch()
    enhanced = enhancer(noisy)

    # The classifier learns by its own loss alone, on images that are cut from their graph.
    optimizer_of_task.zero_grad()
    cross_entropy(classifier(enhanced.detach()), spot).backward()  # type: ignore[no-untyped-call]
    optimizer_of_task.step()

    main = mse_loss(enhanced, clean)
    aux = cross_entropy(classifier(enhanced), spot)
    gradients, report = gate(main, aux, enhancer.named_parameters())
    for parameter, gradient in zip(enhancer.parameters(), gradients, strict=True):
        parameter.grad = gradient
    optimizer.step()

print(f"main {main:.4f}, gate {'open' if report.open else 'closed'}, cosine {report.cosine:+.2f}")

summary = gate.diagnostics()
print(f"open in {summary.open_fraction:.0%} of {summary.steps} steps")
print("mean cosine", summary.cosine, "of averages", summary.average_cosine)
