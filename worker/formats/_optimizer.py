"""What a file says about training: the settings of ``compile()`` and the state of the optimizer, for Keras 3.

Settings are read as data and made from what Keras exports, one by one, so that a loss of somebody's own costs that loss
and nothing else. The state is a list of arrays in the order of the release that wrote it: by kind of value (every
first moment, then every second one) up to Keras 2.10, by variable since. Every array must fit its variable by shape,
and by its name where the file gives names. Where anything is in doubt the state is left out, and a finding says why.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.formats import _registry, _weights
from worker.formats._rebuild import Part
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np

    Named = tuple[str, np.ndarray]

NO_PLACE = "the result has no place for it"
OPTIMIZER_DROPPED = declare(
    "optimizer-dropped",
    Severity.WARNING,
    "The file also holds the optimizer's state, which was not carried over ({reason}): training starts anew.",
)
COMPILE_DROPPED = declare(
    "compile-dropped",
    Severity.NOTE,
    "The settings of compile() (loss, metrics, optimizer) were not carried over; call compile() before training.",
)
SETTING_DROPPED = declare(
    "compile-setting-dropped",
    Severity.WARNING,
    "Of the settings of compile(), {setting} was not carried over: {reason}. Call compile() again before training.",
)
DECAY = declare(
    "repaired-decay",
    Severity.NOTE,
    "Optimizers have no argument decay any more. decay={value} became the schedule InverseTimeDecay, which computes "
    "the same learning rates.",
)
EPSILON_MOVED = declare(
    "optimizer-epsilon",
    Severity.NOTE,
    "{optimizer} adds epsilon inside the square root now, and added it outside when this file was written; training "
    "goes on with differences of that size.",
)

# The lists in which an optimizer of Keras 3 keeps its state, in the order of the releases: values of one bracket
# alternate from variable to variable since Keras 2.11, while older releases wrote every list by itself.
_LAYOUT: dict[str, tuple[tuple[str, ...], ...]] = {
    "Adam": (("_momentums", "_velocities"), ("_velocity_hats",)),
    "AdamW": (("_momentums", "_velocities"), ("_velocity_hats",)),
    "Adamax": (("_m", "_u"),),
    "SGD": (("momentums",),),
    "RMSprop": (("_velocities",), ("_momentums",), ("_average_gradients",)),
    "Adagrad": (("_accumulators",),),
    "Adadelta": (("_accumulated_grads", "_accumulated_delta_vars"),),
    "Ftrl": (("_accumulators", "_linears"),),
    "Lion": (("_momentums",),),
}
# What releases call the values of such a list.
_CALLED: dict[str, frozenset[str]] = {
    "_momentums": frozenset({"m", "momentum"}),
    "momentums": frozenset({"m", "momentum", "moment"}),
    "_m": frozenset({"m", "momentum"}),
    "_velocities": frozenset({"v", "velocity", "rms", "accumulator"}),
    "_u": frozenset({"u", "v", "norm"}),
    "_velocity_hats": frozenset({"vhat", "velocity_hat"}),
    "_average_gradients": frozenset({"mg", "average_gradient"}),
    "_accumulators": frozenset({"accumulator"}),
    "_linears": frozenset({"linear"}),
    "_accumulated_grads": frozenset({"accum_grad", "accumulated_grad", "accumulator"}),
    "_accumulated_delta_vars": frozenset({"accum_var", "accumulated_delta_var", "delta_accumulator"}),
}
_VALUES = frozenset().union(*_CALLED.values())
_OTHER_EPSILON = frozenset({"RMSprop", "Adagrad"})  # until Keras 2.10
_SILENT = frozenset({"is_legacy_optimizer", "jit_compile", "decay", "lr"})  # read by themselves, or about speed alone
_SETTINGS = ("loss", "metrics", "weighted_metrics", "loss_weights")


class _Doubt(Exception):
    """Why something cannot be carried over, in words that end a sentence."""


@dataclass(frozen=True)
class Training:
    """The training side of a model at rest.

    ``config``: optimizer (class_name, config), loss, metrics, weighted_metrics, loss_weights. ``state`` reads the
    optimizer's variables, named where the file names them; None where there are none. ``doubt``: why they are no use.
    """

    config: Mapping[str, Any]
    state: Callable[[], list[Named]] | None = None
    keras_3: bool = False
    doubt: str = ""

    @property
    def traits(self) -> frozenset[str]:
        found = {"compiled"} if self.config.get("optimizer") else set()
        return frozenset(found | ({"optimizer"} if self.state or self.doubt else set()))

    def dropped(self) -> tuple[Finding, ...]:
        """What is lost where the target keeps nothing of training."""
        lost = (COMPILE_DROPPED(),) if self.config else ()
        return (*lost, OPTIMIZER_DROPPED(reason=self.doubt or NO_PLACE)) if "optimizer" in self.traits else lost


@dataclass
class _Site:
    """What one restoring shares."""

    training: Training
    findings: list[Finding] = field(default_factory=list)


def restore(model: Any, part: Part, training: Training, *, state: bool = True) -> tuple[Finding, ...]:
    """Compile the model as the file says, with the optimizer's state unless ``state`` is False; what could not be kept.

    ``part``: the model's layers in the order of the file.
    """
    site = _Site(training)
    try:
        optimizer = _optimizer(site)
        model.compile(optimizer=optimizer, **_settings(model, site))
    except Exception as error:  # a custom compile(), or whatever Keras says to settings of another era
        reason = str(error) if isinstance(error, _Doubt) else "Keras 3 cannot make this optimizer"
        lost = (OPTIMIZER_DROPPED(reason=training.doubt or reason),) if "optimizer" in training.traits else ()
        return COMPILE_DROPPED(), *lost
    if "optimizer" in training.traits:
        site.findings += _restore_state(model, part, training) if state else [OPTIMIZER_DROPPED(reason=NO_PLACE)]
    return tuple(site.findings)


def _restore_state(model: Any, part: Part, training: Training) -> list[Finding]:
    """Fill in the state; the finding where it cannot be."""
    try:
        if training.state is None:
            raise _Doubt(training.doubt)
        _fill(model, part, training.state(), training)
    except _Doubt as doubt:
        return [OPTIMIZER_DROPPED(reason=str(doubt))]
    name = type(model.optimizer).__name__
    old = not training.keras_3 and _is_old(training)
    return [EPSILON_MOVED(optimizer=name)] if old and name in _OTHER_EPSILON else []


# The optimizer ----------------------------------------------------------------------------------------------------


def _optimizer(site: _Site) -> Any:
    """The optimizer of Keras 3 with the file's settings; _Doubt where there is none."""
    node = site.training.config.get("optimizer")
    if not isinstance(node, Mapping) or not isinstance(node.get("config"), Mapping):
        raise _Doubt("the file does not say which optimizer it was")
    kind = str(node["class_name"]).split(">")[-1]
    known = _exported("optimizers", "Optimizer")
    custom = _registry.custom_object(dict(node))
    if kind not in known and custom is None:
        raise _Doubt(f"Keras 3 has no optimizer {kind}")
    if kind == "LossScaleOptimizer" and not site.training.keras_3:
        raise _Doubt("it is wrapped in a LossScaleOptimizer of Keras 2")
    cls = known.get(kind, custom)
    if site.training.keras_3:
        return _made(cls, node["config"])
    return _made(cls, _modern_config(kind, cls, dict(node["config"]), site))


def _made(cls: Any, config: Mapping[str, Any]) -> Any:
    import keras

    settings = dict(config)
    rate = settings.get("learning_rate")
    if isinstance(rate, Mapping):
        settings["learning_rate"] = _schedule(rate)
    if "inner_optimizer" in settings:
        return keras.saving.deserialize_keras_object(
            {"module": "keras.optimizers", "class_name": cls.__name__, "config": settings, "registered_name": None},
            safe_mode=True,
        )
    return cls(**settings)


def _modern_config(kind: str, cls: Any, config: dict[str, Any], site: _Site) -> dict[str, Any]:
    """The arguments that Keras 1 and 2 wrote, as Keras 3 takes them."""
    if kind == "Nadam":
        config.pop("decay", None)  # of the momentum, which Keras 3 does not let anybody choose
    config["learning_rate"] = _rate(config, site)
    if config.get("epsilon", 0.0) is None:
        config["epsilon"] = 1e-7
    if config.get("use_ema"):
        raise _Doubt("it averages its weights (use_ema), in a way of Keras 2")
    accepted = frozenset(inspect.signature(cls.__init__).parameters) | _base_arguments()
    unknown = [key for key, value in config.items() if key not in accepted | _SILENT and value is not None]
    if unknown:
        raise _Doubt(f"{kind} of Keras 3 takes no {unknown[0]}")
    return {key: value for key, value in config.items() if key in accepted and key not in _SILENT}


def _rate(config: dict[str, Any], site: _Site) -> Any:
    """The learning rate, or the schedule that ``decay`` stood for."""
    import keras

    rate = config.get("learning_rate", config.get("lr"))
    decay = float(config.get("decay") or 0.0)
    if isinstance(rate, Mapping):
        return rate
    if rate is None:
        raise _Doubt("its learning rate is not in the file")
    if not decay:
        return float(rate)
    site.findings.append(DECAY(value=decay))
    return keras.optimizers.schedules.InverseTimeDecay(float(rate), decay_steps=1, decay_rate=decay)


def _schedule(node: Mapping[str, Any]) -> Any:
    known = _exported("optimizers.schedules", "LearningRateSchedule")
    kind = str(node.get("class_name"))
    if kind not in known:
        raise _Doubt(f"its learning rate follows {kind}, which Keras 3 does not have")
    return known[kind](**{key: value for key, value in node["config"].items() if value is not None})


def _base_arguments() -> frozenset[str]:
    import keras

    return frozenset(inspect.signature(keras.optimizers.Optimizer.__init__).parameters) - {"kwargs", "self"}


def _exported(place: str, base: str) -> dict[str, Any]:
    """The classes that Keras exports in a module, by name."""
    import keras

    module = {
        "optimizers": keras.optimizers,
        "optimizers.schedules": keras.optimizers.schedules,
        "losses": keras.losses,
        "metrics": keras.metrics,
    }[place]
    root = getattr(module, base)
    return {name: item for name, item in vars(module).items() if inspect.isclass(item) and issubclass(item, root)}


# Its state --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slot:
    """One variable of the optimizer: what it is called there, and which weight it belongs to."""

    variable: Any
    called: frozenset[str]
    weight: str


def _fill(model: Any, part: Part, arrays: list[Named], training: Training) -> None:
    """Give every variable of the optimizer its array; _Doubt where one does not fit."""
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    own = training.keras_3
    pairs = _in_own_order(optimizer, arrays) if own else _in_old_order(model, part, arrays, training)
    for variable, array in pairs:
        if tuple(variable.shape) != tuple(array.shape):
            raise _Doubt(f"the shapes of its {type(optimizer).__name__} are not those of the weights")
    for variable, array in pairs:
        variable.assign(array)


def _in_own_order(optimizer: Any, arrays: list[Named]) -> list[tuple[Any, Any]]:
    """Keras 3 writes the variables as it lists them, and names the slots in some of its files."""
    wanted = list(optimizer.variables)
    if len(wanted) != len(arrays):
        raise _Doubt(f"it has {len(arrays)} values, and this optimizer has {len(wanted)}")
    for variable, (name, _) in zip(wanted, arrays, strict=True):
        if name and re.split("[_/]", name)[-1] != variable.name.rsplit("_", 1)[-1]:
            raise _Doubt(f"{name} stands where {variable.name} belongs")
    return [(variable, array) for variable, (_, array) in zip(wanted, arrays, strict=True)]


def _in_old_order(model: Any, part: Part, arrays: list[Named], training: Training) -> list[tuple[Any, Any]]:
    optimizer = model.optimizer
    kind = type(optimizer).__name__
    if kind not in _LAYOUT:
        raise _Doubt(f"{kind} of Keras 2 keeps other values than {kind} of Keras 3")
    orders = [_grouped, _alternating] if _is_old(training) else [_alternating, _grouped]
    slots = [order(model, part) for order in orders]
    if not arrays:
        raise _Doubt("its values are not in the file")
    head, values = _split(arrays, slots[0], kind)
    fitting = next((item for item in slots if _agree(item, values)), None)
    if fitting is None:
        raise _Doubt("its values do not belong to the weights by name and shape")
    pairs = [(slot.variable, array) for slot, (_, array) in zip(fitting, values, strict=True)]
    return [(optimizer._iterations, array) for _, array in head[:1]] + pairs


def _is_old(training: Training) -> bool:
    """Is this an optimizer of up to Keras 2.10, or one that was kept as ``legacy`` after that?"""
    config = (training.config.get("optimizer") or {}).get("config") or {}
    return bool(config.get("is_legacy_optimizer", True))


def _split(arrays: list[Named], slots: Sequence[_Slot], kind: str) -> tuple[list[Named], list[Named]]:
    """The counter of steps, and the values of the slots. Some releases wrote no counter, others values of no use."""
    used = [item for item in arrays if not _is_unused(item, kind)]
    if kind == "SGD" and not slots:
        used = used[:1]
    head = len(used) - len(slots)
    if head not in (0, 1) or any(array.ndim for _, array in used[:head]):
        raise _Doubt(f"it has {len(arrays)} values, and {kind} needs {len(slots)}")
    return used[:head], used[head:]


def _is_unused(item: Named, kind: str) -> bool:
    """Adam without amsgrad has had placeholders of one element; the learning rate is among the settings."""
    name = item[0].split(":")[0].rsplit("/", 1)[-1]
    return (kind == "Adam" and name.startswith("vhat_") and item[1].shape == (1,)) or name == "learning_rate"


def _grouped(model: Any, part: Part) -> list[_Slot]:
    """Every list by itself, as releases up to Keras 2.10 wrote them."""
    attributes = [name for names in _LAYOUT[type(model.optimizer).__name__] for name in names]
    return [_slot(model, name, weight) for name in attributes if _has(model, name) for weight in _trainable(part)]


def _alternating(model: Any, part: Part) -> list[_Slot]:
    """Variable by variable, as Keras 2.11 and later write them."""
    return [
        _slot(model, name, weight)
        for names in _LAYOUT[type(model.optimizer).__name__]
        for weight in _trainable(part)
        for name in names
        if _has(model, name)
    ]


def _has(model: Any, attribute: str) -> bool:
    return bool(getattr(model.optimizer, attribute, None))


def _trainable(part: Part) -> list[Any]:
    return [variable for variable in _weights.variables_of(part) if variable.trainable]


def _slot(model: Any, attribute: str, weight: Any) -> _Slot:
    place = next(index for index, item in enumerate(model.trainable_variables) if item is weight)
    return _Slot(getattr(model.optimizer, attribute)[place], _CALLED[attribute], str(weight.path))


def _agree(slots: Sequence[_Slot], values: Sequence[Named]) -> bool:
    return len(slots) == len(values) and all(
        tuple(slot.variable.shape) == tuple(array.shape) and _is_called(slot, name)
        for slot, (name, array) in zip(slots, values, strict=True)
    )


def _is_called(slot: _Slot, name: str) -> bool:
    """Does the file's name speak of this value of this weight? Keras 1 and 2.0 wrote names that say nothing."""
    words = name.split(":")[0].split("/")
    if len(words) < 3 or words[-1].startswith("Variable"):
        return True
    value, weight = _said(words)
    return value in slot.called and weight in ("", _weights.last_name(slot.weight))


def _said(words: list[str]) -> tuple[str, str]:
    """The value and the weight in ``Adam/d1/kernel/m``, ``Adam/m/d1/kernel`` (since 2.11), ``training/Adam/m_0_1``."""
    if words[0] == "training" and len(words) == 3:
        return re.sub(r"(_\d+)+$", "", words[-1]), ""
    if words[-1] in _VALUES:
        return words[-1], _weights.last_name(words[-2])
    return words[1], _weights.last_name(words[-1])


# Loss and metrics -------------------------------------------------------------------------------------------------


def _settings(model: Any, site: _Site) -> dict[str, Any]:
    """The arguments of ``compile`` beside the optimizer; those that cannot be made are left out and told."""
    makers = {"loss": _loss, "metrics": _metric, "weighted_metrics": _metric, "loss_weights": lambda value: value}
    found = {}
    for name in _SETTINGS:
        value = site.training.config.get(name)
        if value is not None and value != []:
            try:
                _require_outputs(model, value)
                found[name] = _each(value, makers[name])
            except Exception as error:  # what Keras says to settings of another era, or of somebody's own
                reason = str(error) if isinstance(error, _Doubt) else "Keras 3 cannot make it"
                site.findings.append(SETTING_DROPPED(setting=name, reason=reason))
    return found


def _require_outputs(model: Any, value: Any) -> None:
    """Settings by output must name outputs that are there."""
    names = set(getattr(model, "output_names", None) or ())
    if isinstance(value, Mapping) and "class_name" not in value and not set(value) <= names:
        raise _Doubt("it names outputs that the model does not have")


def _each(value: Any, make: Callable[[Any], Any]) -> Any:
    """Settings come alone, for each output in a list, or by the names of the outputs."""
    if isinstance(value, list):
        return [_each(item, make) for item in value]
    if isinstance(value, Mapping) and "class_name" not in value:
        return {key: _each(item, make) for key, item in value.items()}
    return None if value is None else make(value)


def _loss(value: Any) -> Any:
    import keras

    made = _made_setting(value, _exported("losses", "Loss"), keras.losses.get)
    return keras.losses.get(made).__name__ if isinstance(made, str) else made  # Keras cannot read "mse" from .h5


def _metric(value: Any) -> Any:
    import keras

    if value in ("accuracy", "acc", "crossentropy", "ce"):
        return value  # Keras picks the fitting one when it sees the output
    if isinstance(value, Mapping) and value.get("class_name") == "MeanMetricWrapper":
        config = value["config"]
        return keras.metrics.MeanMetricWrapper(keras.metrics.get(str(config["fn"])), name=config.get("name"))
    return _made_setting(value, _exported("metrics", "Metric"), keras.metrics.get)


def _made_setting(value: Any, known: Mapping[str, Any], by_name: Callable[[str], Any]) -> Any:
    """A loss or metric from its name, or from its class and settings."""
    if isinstance(value, Mapping) and isinstance(value.get("config"), str):
        value = value["config"]  # a function, by name
    if isinstance(value, str):
        return _function(value, by_name)
    kind = str(value["class_name"]).split(">")[-1]
    cls = known.get(kind) or _registry.custom_object(dict(value))
    if cls is None:
        raise _Doubt(f"{kind} is not in the file")
    accepted = _registry.accepted_arguments(cls)
    config = {key: item for key, item in value["config"].items() if key in accepted}
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    return cls(**config)


def _function(name: str, by_name: Callable[[str], Any]) -> Any:
    import keras

    custom = keras.saving.get_custom_objects().get(name)
    if custom is not None:
        return custom
    try:
        by_name(name)
    except ValueError as error:
        raise _Doubt(f"{name} is not in the file") from error
    return name
