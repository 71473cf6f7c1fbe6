"""Rows of calls.CALLS: the gradients.

    g = dy * weight,  dx = rstd * (g - sum(g) / n - xhat * sum(g * xhat) / n)
    dweight = sum(dy * xhat),  dbias = sum(dy)

n elements of a group entered its statistics; the two means come back to those elements alone. Where the statistics were
given, dx = rstd * g.
"""

import numpy as np
import references as ref
from call import Call, Taken, cut
from calls_forward import cut_channels, mask_of, normalized, of_channels, some_divisor, statistics

import onepass as op


def gradient(name, shape, groups, weight_axes, run, axis, masked=False, centred=True, given=False, rows=()):
    """A Call of a gradient: weights lie along weight_axes; the statistics are the running ones where `given`."""
    of_weight = tuple(shape[a] for a in weight_axes)
    summed = tuple(a for a in range(len(shape)) if a not in weight_axes)
    takes = {"dy": Taken(shape, "data"), "weight": Taken(of_weight, "weight")}
    if masked:
        takes |= mask_of(shape, axis)
    if given:
        takes |= statistics(of_weight, False)

    def parts(a, eps):
        """xhat, rstd, g and what counts, by groups."""
        counts = np.ones((1, 1), bool)
        if given:
            y = ref.batch_norm_inference(a["x"], a["running_mean"], a["running_var"], None, None, axis, eps)
            xhat, rstd = call.groups(y[0]), np.broadcast_to(y[2], shape)
            rstd = call.groups(rstd)[:, :1]
        elif centred:
            xhat, rstd, counts = normalized(call, a, eps)
        else:
            x = call.groups(ref.wide(a["x"]))
            rstd = 1 / np.sqrt(np.square(x).mean(1, keepdims=True) + eps)
            xhat = x * rstd
        g = call.groups(ref.affine(ref.wide(a["dy"]), a["weight"], None, weight_axes))
        return xhat, rstd, g, counts

    def terms(a, eps):
        """The terms that dx is the sum of."""
        xhat, rstd, g, counts = parts(a, eps)
        yield rstd * g
        if not given:
            n = counts.sum(1, keepdims=True) if centred else xhat.shape[1]
            with np.errstate(all="ignore"):
                if centred:
                    yield np.where(counts, -rstd * g.sum(1, keepdims=True) / n, 0)
                yield np.where(counts, -rstd * xhat * (g * xhat).sum(1, keepdims=True) / n, 0)

    def sums(a, eps):
        xhat = parts(a, eps)[0]
        largest = np.broadcast_to(np.abs(xhat).max(1, keepdims=True), xhat.shape)  # xhat's own unit
        dy, xhat, largest = ref.wide(a["dy"]), call.scattered(xhat), call.scattered(largest)
        yield (dy * xhat).sum(summed), np.abs(dy * largest).sum(summed)
        if centred:
            yield dy.sum(summed), np.abs(dy).sum(summed)

    call = Call(
        name, shape, takes, run, groups,
        lambda a, eps: call.scattered(sum(terms(a, eps))),
        lambda a, eps: call.scattered(np.maximum.reduce([np.abs(term) for term in terms(a, eps)])),
        sums, outs=(), rows=rows, centred=centred, weigh=of_channels(axis) if masked else None,
    )  # fmt: skip
    return call


def of_rows(name, centred=True):
    """The gradient of layer or RMS norm."""

    def build(shape, axis):
        axes = ref.axes_of(axis, len(shape))

        def run(a, eps):
            return getattr(op, name)(a["dy"], a["x"], a["weight"], axis=axis, eps=eps)

        rows = () if 0 in axes else (0,)
        return gradient(name, shape, cut(axes), axes, run, axis, centred=centred, rows=rows)

    return build


def batch_norm(how=""):
    """Training, "masked", or "inference"."""

    def build(shape, axis):
        def run(a, eps):
            options = {"mask": a["mask"]} if how == "masked" else {}
            if how == "inference":
                running = {key: a[key] for key in ("running_mean", "running_var")}
                options = {"training": False, **running}
            return op.batch_norm_backward(a["dy"], a["x"], a["weight"], axis=axis, eps=eps, **options)

        groups = cut(ref.others(axis % len(shape), len(shape)))
        return gradient(
            f"batch_norm_backward {how}".strip(), shape, groups, (axis % len(shape),), run, axis,
            masked=how == "masked", given=how == "inference", rows=(0,) if how == "inference" and axis % len(shape) else (),
        )  # fmt: skip

    return build


def grouped(name, masked=False):
    """The gradient of group or instance norm."""

    def build(shape, axis):
        number = some_divisor(shape[axis]) if name == "group_norm_backward" else shape[axis]
        groups = (number,) if name == "group_norm_backward" else ()

        def run(a, eps):
            options = {"mask": a["mask"]} if masked else {}
            return getattr(op, name)(a["dy"], a["x"], *groups, a["weight"], axis=axis, eps=eps, **options)

        return gradient(
            name + " masked" * masked, shape, cut_channels(axis, number), (axis % len(shape),), run, axis,
            masked=masked, rows=(0,),
        )  # fmt: skip

    return build
