"""What the comparisons with `transformers` share."""

import pytest


@pytest.fixture
def publish(tmp_path):
  """Draws a torch model's parameters anew, saves it, returns the folder.

  `transformers` starts with biases at 0 and gains at 1, which would hide a
  mistake in where they go.
  """
  torch = pytest.importorskip("torch", reason="the reference needs torch")

  def save(model, **settings):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
      for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = parameter.ndim == 1 and name.endswith("weight")
        parameter.copy_(gain + 0.2 * noise)
    model.eval().save_pretrained(tmp_path, **settings)
    return tmp_path

  return save
