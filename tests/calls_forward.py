"""Rows of calls.CALLS: norms, moments and standardize. Each takes x's shape and the axis, and gives a Call."""

import dataclasses

import numpy as np
import references as ref
from call import Call, Taken, cut

import onepass as op


def parameters(shape, *names):
    return {name: Taken(shape, name) for name in names}


def statistics(shape, updated):
    return {
        "running_mean": Taken(shape, "mean", updated),
        "running_var": Taken(shape, "var", updated),
    }


def mask_of(shape, axis):
    """x's shape without the channels."""
    channel = axis % len(shape)
    return {"mask": Taken(tuple(n for i, n in enumerate(shape) if i != channel), "mask")}


def of_channels(axis):
    """weigh() of a mask without the channels."""
    return lambda arrays: np.broadcast_to(np.expand_dims(arrays["mask"], axis), arrays["x"].shape)


def normalized(call, arrays, eps):
    """xhat and rstd of each group, the statistics those of the elements that count; and which count."""
    x = call.groups(ref.wide(arrays["x"]))
    counts = call.groups(call.weigh(arrays) if call.weigh else np.ones(call.shape, bool))
    n = np.maximum(counts.sum(1, keepdims=True), 1)
    first = np.take_along_axis(x, counts.argmax(1)[:, None], 1)  # near the mean, that no digits are lost
    distance = x - first
    distance = distance - np.where(counts, distance, 0).sum(1, keepdims=True) / n
    with np.errstate(all="ignore"):
        rstd = 1 / np.sqrt(np.where(counts, np.square(distance), 0).sum(1, keepdims=True) / n + eps)
        return distance * rstd, rstd, counts


def layer_norm(shape, axis):
    axes = ref.axes_of(axis, len(shape))
    return Call(
        "layer_norm", shape, parameters(tuple(shape[a] for a in axes), "weight", "bias"),
        lambda a, eps, **outs: op.layer_norm(a["x"], a["weight"], a["bias"], axis=axis, eps=eps,
                                             return_stats=True, **outs),
        cut(axes),
        lambda a, eps: ref.layer_norm(a["x"], a["weight"], a["bias"], axis, eps)[0],
        rows=() if 0 in axes else (0, 1, 2),
    )  # fmt: skip


def rms_norm(shape, axis):
    axes = ref.axes_of(axis, len(shape))
    return Call(
        "rms_norm", shape, parameters(tuple(shape[a] for a in axes), "weight"),
        lambda a, eps, **outs: op.rms_norm(a["x"], a["weight"], axis=axis, eps=eps, return_stats=True, **outs),
        cut(axes),
        lambda a, eps: ref.rms_norm(a["x"], a["weight"], axis, eps)[0],
        rows=() if 0 in axes else (0, 1), centred=False,
    )  # fmt: skip


def added(norm):
    """A norm of x + residual, from the norm of x."""

    def build(shape, axis):
        plain = norm(shape, axis)
        names = [*plain.takes]

        def run(a, eps, **outs):
            function = getattr(op, f"add_{plain.name}")
            return function(a["x"], a["residual"], *(a[name] for name in names), axis=axis, eps=eps, **outs)

        def reference(a, eps):
            dtype = a["x"].dtype
            if dtype.itemsize == 2:
                total = ref.rounded(ref.wide(a["x"]) + ref.wide(a["residual"]), dtype)
            else:
                total = a["x"] + a["residual"]
            return plain.reference({**a, "x": total}, eps)

        return dataclasses.replace(
            plain,
            name=f"add_{plain.name}",
            takes={"residual": Taken(shape, "data"), **plain.takes},
            run=run,
            reference=reference,
            outs=("out", "sum_out"),
            rows=(0, 1) if plain.rows else (),
        )

    return build


def batch_norm_training(shape, axis, masked=False):
    channels = (shape[axis],)

    def run(a, eps, **outs):
        return op.batch_norm(
            a["x"], a["weight"], a["bias"], running_mean=a["running_mean"], running_var=a["running_var"],
            training=True, running_ddof=0, axis=axis, eps=eps, return_stats=True, **mask(a), **outs,
        )  # fmt: skip

    def mask(a):
        return {"mask": a["mask"]} if masked else {}

    def reference(a, eps):
        if not masked:
            return ref.batch_norm(a["x"], a["weight"], a["bias"], axis, eps)[0]
        y = call.scattered(normalized(call, a, eps)[0])
        return ref.affine(y, a["weight"], a["bias"], (axis % len(shape),))

    call = Call(
        "batch_norm training" + " masked" * masked, shape,
        parameters(channels, "weight", "bias") | (mask_of(shape, axis) if masked else {})
        | statistics(channels, True),
        run, cut(ref.others(axis % len(shape), len(shape))), reference,
        weigh=of_channels(axis) if masked else None,
    )  # fmt: skip
    return call


def batch_norm_inference(shape, axis):
    channels = (shape[axis],)

    def run(a, eps, **outs):
        running = {name: a[name] for name in ("running_mean", "running_var")}
        return op.batch_norm(
            a["x"], a["weight"], a["bias"], **running, axis=axis, eps=eps, return_stats=True, **outs
        )

    return Call(
        "batch_norm inference", shape,
        parameters(channels, "weight", "bias") | statistics(channels, False),
        run,
        cut(ref.others(axis % len(shape), len(shape))),
        lambda a, eps: ref.batch_norm_inference(a["x"], a["running_mean"], a["running_var"], a["weight"],
                                                a["bias"], axis, eps)[0],
        rows=(0,) if axis % len(shape) else (),
    )  # fmt: skip


def some_divisor(n):
    """Of the divisors of n the one in the middle."""
    divisors = [d for d in range(1, n + 1) if n % d == 0]
    return divisors[len(divisors) // 2]


def cut_channels(axis, number):
    """groups() of group norm."""

    def groups(a):
        first = np.moveaxis(a, axis, 1)
        return first.reshape(first.shape[0] * number, -1)

    return groups


def grouped(name, masked=False):
    """Group norm, its channels cut into some_divisor groups; instance norm is a group a channel."""

    def build(shape, axis):
        number = some_divisor(shape[axis]) if name == "group_norm" else shape[axis]
        groups = (number,) if name == "group_norm" else ()

        def run(a, eps, **outs):
            given = {"axis": axis, "eps": eps, "return_stats": True, **outs}
            if masked:
                given["mask"] = a["mask"]
            return getattr(op, name)(a["x"], *groups, a["weight"], a["bias"], **given)

        def reference(a, eps):
            y = call.scattered(normalized(call, a, eps)[0])
            return ref.affine(y, a["weight"], a["bias"], (axis % len(shape),))

        call = Call(
            name + " masked" * masked, shape,
            parameters((shape[axis],), "weight", "bias") | (mask_of(shape, axis) if masked else {}),
            run, cut_channels(axis, number), reference, rows=(0, 1, 2),
            weigh=of_channels(axis) if masked else None,
        )  # fmt: skip
        return call

    return build


def moments(how=""):
    """Plain, "masked", "weighted", or with NaN left out ("skipna")."""

    def build(shape, axis):
        axes = ref.axes_of(axis, len(shape))
        takes = {"weights": Taken(shape, "weights")} if how == "weighted" else {}
        if how in ("masked", "skipna"):
            takes = {"mask": Taken(shape, "mask")}

        def run(a, eps):
            options = {"masked": {"mask": a.get("mask")}, "weighted": {"weights": a.get("weights")},
                       "skipna": {"skipna": True}}.get(how, {})  # fmt: skip
            m = op.moments(a["x"], axis, **options)
            return np.asarray(m.count), np.asarray(m.mean), np.asarray(m.m2)

        def prepare(a):
            if how == "skipna":
                a["x"] = np.where(a["mask"], a["x"], a["x"].dtype.type(np.nan))

        return Call(
            f"moments {how}".strip(), shape, takes, run, cut(axes), outs=(),
            rows=() if 0 in axes else (0, 1, 2)[not how :],
            weigh=(lambda a: a["weights" if how == "weighted" else "mask"]) if how else None,
            prepare=prepare,
        )  # fmt: skip

    return build


def standardize(shape, axis):
    axes = ref.axes_of(axis, len(shape))

    def run(a, eps, **outs):
        y, m = op.standardize(a["x"], axis=axis, eps=eps, return_moments=True, **outs)
        return y, np.asarray(m.mean), np.asarray(m.m2)

    return Call(
        "standardize", shape, {}, run, cut(axes),
        lambda a, eps: ref.standardize(a["x"], axis, 0, eps),
        rows=() if 0 in axes else (0, 1, 2),
    )  # fmt: skip


def min_max_scale(shape, axis):
    axes, ends = ref.axes_of(axis, len(shape)), (-0.5, 0.75)
    return Call(
        "min_max_scale", shape, {},
        lambda a, eps, **outs: (op.min_max_scale(a["x"], axis=axis, feature_range=ends, **outs),),
        cut(axes),
        lambda a, eps: ref.min_max_scale(a["x"], axis, ends),
        rows=() if 0 in axes else (0,),
    )  # fmt: skip
