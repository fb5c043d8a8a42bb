"""What settings of different sections of a config must agree in."""

from collections.abc import Mapping
from typing import Any

from v2a_jax.experiment import sections
from v2a_jax.experiment.sections import ConfigError


def check_family(
  names: Mapping[str, str], target: str, codec: Any, codec_name: str
) -> None:
  """Refuses a target, objective or sampler of another family than the model's.

  Args:
    names: name of the model, objective and sampler.
    target: what is generated, `latents` or `codes`.
    codec: the frozen codec; None where no generator is trained.
    codec_name: name of the codec in the config.

  Raises:
    ConfigError: names the key, and what goes with the model.
  """
  name = names["model"]
  model = sections.MODELS[name]
  rows = [("data.target", target, {model.target})]
  for section, value in names.items():
    if section != "model":
      table = sections.NAMED[section]
      suited = {k for k, cls in table.items() if cls.family == model.family}
      rows.append((f"{section}.name", value, suited))
  for key, value, suited in rows:
    if value not in suited:
      raise ConfigError(
        f"config.{key}={value!r} does not go with config.model.name={name!r}:"
        f" use {' or '.join(map(repr, sorted(suited)))}"
      )
  if model.target == "codes" and not codec.config.num_codebooks:
    raise ConfigError(
      f"config.model.name={name!r} generates codes, but config.codec="
      f"{codec_name!r} has none: use a codec with codebooks, or a model of"
      " latents with data.target='latents'"
    )


def check_sections(experiment: Any) -> None:
  """Checks settings of one section against those of another.

  Raises:
    ConfigError: names both.
  """
  config = experiment.config
  for section in ("objective", "sampler"):
    part = getattr(experiment, section)
    for need in part.needs if part else ():
      value = getattr(part, need.setting) if need.setting else True
      if value and not sections.look_up(config, need.needed):
        what = f"{section}.{need.setting or 'name'}"
        value = sections.look_up(config, what)
        raise ConfigError(
          f"config.{what}={value!r}, but config.{need.needed} is not set:"
          f" {need.reason}"
        )
  if experiment.data.cached_target:
    _check_cached_target(experiment)
  optimizer = experiment.optimizer
  parts = (optimizer, *map(optimizer.partition, optimizer.partitions))
  if not any(part.learning_rate for part in parts):
    raise ConfigError(
      f"config.optimizer.learning_rate={optimizer.learning_rate}, and no"
      " partition has another: nothing would be trained"
    )
  run = experiment.run
  if not experiment.trains_generator:
    if run.eval_samples:
      raise ConfigError(
        f"config.eval_samples={run.eval_samples}: only a generator makes sound;"
        " set it to 0"
      )
    return
  if experiment.lora.rank and experiment.conditioner.tune == "lora":
    raise ConfigError(
      f"config.lora.rank={experiment.lora.rank} adapts the whole model, so"
      " config.model.conditioner.tune='lora' has nothing left: use one of them"
    )
  # What is started from has its own.
  tokenizer = experiment.data.prompt_tokenizer or run.init_from
  if experiment.conditioner.prompt_encoder.name and not tokenizer:
    raise ConfigError(
      "config.data.prompt_tokenizer is empty, but"
      " config.model.conditioner.prompt_encoder reads ids of its own: name the"
      " spiece.model or tokenizer.json beside its weights"
    )


def _check_cached_target(experiment: Any) -> None:
  """Refuses cached latents or codes where the sound is needed itself."""
  teacher = getattr(experiment.objective, "teacher", "")
  if not experiment.trains_generator or teacher:
    name = experiment.names["model"]
    reason = (
      f"config.objective.teacher={teacher!r} hears the sound"
      if teacher
      else f"config.model.name={name!r} is trained on sound"
    )
    raise ConfigError(
      f"config.data.cached_target=True reads no sound, but {reason}: set it to"
      " False"
    )
