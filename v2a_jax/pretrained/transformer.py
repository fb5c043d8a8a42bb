"""The plain transformer that published encoders are made of.

Layers are stacked and scanned (`layers.Stack`), so that compile time does not
grow with depth. Softmax and the statistics of norms are float32 whatever the
computation's dtype is. On GPU and TPU float32 products use fewer bits unless
`jax_default_matmul_precision` is "highest".

Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762.
"""

from collections.abc import Callable, Mapping
import functools
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


def layer_norm(size: int, *, epsilon: float, rngs, dtype=None) -> nnx.LayerNorm:
  """Makes a layer norm with gain and bias; two passes give the variance."""
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
    dense = functools.partial(
      layers.dense, use_bias=use_bias, rngs=rngs, dtype=dtype
    )
    self.q = dense(width, inner, axes=("embed", "heads"))
    self.k = dense(width, inner, axes=("embed", "heads"))
    self.v = dense(width, inner, axes=("embed", "heads"))
    self.out = dense(inner, width, axes=("heads", "embed"))

  def __call__(self, x, *, mask=None, bias=None):
    """Attends within each row.

    Args:
      x: [b t d].
      mask: bool [b t]; tokens with False get no weight, but a row that is all
        False weighs all tokens equally.
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
  """down(act(up(x))); if gated, down(act(up(x)) * value(x))."""

  def __init__(
    self,
    width: int,
    hidden: int,
    *,
    activation: str,
    rngs: nnx.Rngs,
    features_out: int | None = None,
    use_bias: bool = True,
    gated: bool = False,
    dtype: Any = None,
  ):
    self.activation = activation
    dense = functools.partial(
      layers.dense, use_bias=use_bias, rngs=rngs, dtype=dtype
    )
    self.up = dense(width, hidden, axes=("embed", "mlp"))
    self.value = dense(width, hidden, axes=("embed", "mlp")) if gated else None
    self.down = dense(hidden, features_out or width, axes=("mlp", "embed"))

  def __call__(self, x):
    hidden = ACTIVATIONS[self.activation](self.up(x))
    if self.value is not None:
      hidden = hidden * self.value(x)
    return self.down(hidden)


class Block(nnx.Module):
  """Attention and MLP, each with a residual and a norm.

  Pre-norm: x + f(norm(x)), as in ViT. Post-norm: norm(x + f(x)), as in BERT.
  """

  def __init__(
    self,
    *,
    attention: Attention,
    mlp: MLP,
    norm: Callable[[], nnx.Module],
    pre_norm: bool = True,
  ):
    self.pre_norm = pre_norm
    self.norm_attention, self.norm_mlp = norm(), norm()
    self.attention, self.mlp = attention, mlp

  def __call__(self, x, mask=None, bias=None):
    """Maps x [b t d]; see `Attention` for mask and bias."""
    attend = functools.partial(self.attention, mask=mask, bias=bias)
    if self.pre_norm:
      x = x + attend(self.norm_attention(x))
      return x + self.mlp(self.norm_mlp(x))
    x = self.norm_attention(x + attend(x))
    return self.norm_mlp(x + self.mlp(x))


def stack(config, *, pre_norm: bool, rngs, dtype) -> layers.Stack:
  """Makes the blocks of a tower whose config has the usual published names."""
  c = config

  def block(rngs):
    arguments = dict(rngs=rngs, dtype=dtype)
    return Block(
      attention=Attention(c.hidden_size, c.num_attention_heads, **arguments),
      mlp=MLP(
        c.hidden_size,
        c.intermediate_size,
        activation=c.hidden_act,
        **arguments,
      ),
      norm=lambda: layer_norm(
        c.hidden_size, epsilon=c.layer_norm_eps, **arguments
      ),
      pre_norm=pre_norm,
    )

  return layers.Stack(block, c.num_hidden_layers, rngs=rngs)
