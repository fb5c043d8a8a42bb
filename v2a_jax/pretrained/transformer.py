"""The plain transformer that published encoders are made of.

Layers are stacked and scanned (`layers.Stack`), so that compile time does not
grow with depth. Softmax and the statistics of norms are float32 whatever the
computation's dtype is. On GPU and TPU float32 products use fewer bits unless
`jax_default_matmul_precision` is "highest".

Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762.
"""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx
import jax

from v2a_jax.models import layers

# By their names in published configs. Quick GELU: x * sigmoid(1.702 x).
ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "gelu_new": jax.nn.gelu,
  "gelu_pytorch_tanh": jax.nn.gelu,
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
}


def check_activation(owner: str, field: str, name: str) -> None:
  """Raises ValueError unless `name` is one of `ACTIVATIONS`."""
  if name not in ACTIVATIONS:
    raise ValueError(
      f"{owner}: {field}={name!r} is not one of {', '.join(ACTIVATIONS)}"
    )


def check_heads(owner: str, width: int, heads: int) -> None:
  """Raises ValueError unless `heads` divides `width`."""
  if heads < 1 or width % heads:
    raise ValueError(
      f"{owner}: hidden_size={width} is not a multiple of"
      f" num_attention_heads={heads}"
    )


def layer_norm(size: int, *, epsilon: float, rngs, dtype=None) -> nnx.LayerNorm:
  """Layer norm with gain and bias; the variance by two passes."""
  return nnx.LayerNorm(
    size, epsilon=epsilon, dtype=dtype, use_fast_variance=False, rngs=rngs
  )


class Attention(nnx.Module):
  """Self-attention of x [b t d] by four linear maps; to [b t d]."""

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    rngs: nnx.Rngs,
    head_dim: int | None = None,
    use_bias: bool = True,
    scale: float | None = None,
    dtype: Any = None,
  ):
    self.head_dim = head_dim or width // num_heads
    self.scale = scale
    inner = num_heads * self.head_dim
    linear = lambda i, o, axes: layers.dense(
      i, o, axes=axes, use_bias=use_bias, rngs=rngs, dtype=dtype
    )
    self.q = linear(width, inner, ("embed", "heads"))
    self.k = linear(width, inner, ("embed", "heads"))
    self.v = linear(width, inner, ("embed", "heads"))
    self.out = linear(inner, width, ("heads", "embed"))

  def __call__(self, x, *, mask=None, bias=None):
    """Attends.

    Args:
      x: [b t d].
      mask: bool [b t]; True may be seen. A row all False sees everything.
      bias: [1 h t t], added to the scores.
    """
    heads = lambda y: y.reshape(*y.shape[:2], -1, self.head_dim)
    out = jax.nn.dot_product_attention(
      heads(self.q(x)),
      heads(self.k(x)),
      heads(self.v(x)),
      bias=bias,
      mask=None if mask is None else mask[:, None, None, :],
      scale=self.scale,
    )
    return self.out(out.reshape(*x.shape[:2], -1))


class MLP(nnx.Module):
  """Two linear maps with biases and an activation between them."""

  def __init__(
    self,
    width: int,
    hidden: int,
    *,
    activation: str,
    rngs: nnx.Rngs,
    features_out: int | None = None,
    dtype: Any = None,
  ):
    self.activation = activation
    linear = lambda i, o, axes: layers.dense(
      i, o, axes=axes, use_bias=True, rngs=rngs, dtype=dtype
    )
    self.up = linear(width, hidden, ("embed", "mlp"))
    self.down = linear(hidden, features_out or width, ("mlp", "embed"))

  def __call__(self, x):
    return self.down(ACTIVATIONS[self.activation](self.up(x)))


class Block(nnx.Module):
  """Attention and MLP, each with a residual and a layer norm.

  Pre-norm: x + f(norm(x)), as in ViT. Post-norm: norm(x + f(x)), as in BERT.
  """

  def __init__(
    self,
    width: int,
    num_heads: int,
    *,
    hidden: int,
    activation: str,
    epsilon: float,
    pre_norm: bool,
    rngs: nnx.Rngs,
    dtype: Any = None,
  ):
    self.pre_norm = pre_norm
    norm = lambda: layer_norm(width, epsilon=epsilon, rngs=rngs, dtype=dtype)
    self.norm_attention, self.norm_mlp = norm(), norm()
    self.attention = Attention(width, num_heads, rngs=rngs, dtype=dtype)
    self.mlp = MLP(width, hidden, activation=activation, rngs=rngs, dtype=dtype)

  def __call__(self, x, mask=None):
    if self.pre_norm:
      x = x + self.attention(self.norm_attention(x), mask=mask)
      return x + self.mlp(self.norm_mlp(x))
    x = self.norm_attention(x + self.attention(x, mask=mask))
    return self.norm_mlp(x + self.mlp(x))


def stack(config, *, pre_norm: bool, rngs, dtype) -> layers.Stack:
  """All blocks of a tower whose config has the usual published names."""
  return layers.Stack(
    lambda rngs: Block(
      config.hidden_size,
      config.num_attention_heads,
      hidden=config.intermediate_size,
      activation=config.hidden_act,
      epsilon=config.layer_norm_eps,
      pre_norm=pre_norm,
      rngs=rngs,
      dtype=dtype,
    ),
    config.num_hidden_layers,
    rngs=rngs,
  )
