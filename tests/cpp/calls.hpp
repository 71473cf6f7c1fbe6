// The calls of the golden digests: each function of the package from dense arrays to the plan, as cpp/bindings/ has it.
#pragma once

#include <stdexcept>

#include "dispatch/dispatch.hpp"
#include "layout.hpp"
#include "plan/cells.hpp"
#include "plan/extremes.hpp"
#include "plan/groups.hpp"
#include "plan/rows.hpp"
#include "plan/rows_backward.hpp"

namespace golden {

using onepass::Cells, onepass::Groups, onepass::groups_of, onepass::Rows;

constexpr double EPS = 0x1p-17, MOMENTUM = 0.1;

// x + residual, as NumPy rounds it.
template <class S>
std::vector<S> sum_of(const std::vector<S>& x, const std::vector<S>& residual) {
    std::vector<S> sum;
    for (std::size_t i = 0; i < x.size(); ++i) {
        Arith<S> a, b;
        onepass::kernels<S>().widen(&x[i], &a, 1);
        onepass::kernels<S>().widen(&residual[i], &b, 1);
        sum.push_back(stored<S>(a + b));
    }
    return sum;
}

template <class S>
void row_norm(const Case& c, Results& out) {
    using T = Arith<S>;
    const bool centered = c.says("layer_norm"), adds = c.says("add_");
    const Layout at(c, sizeof(S), Wanted::rows_and_columns);
    const index groups = at.groups(), length = c.size() / groups;
    std::vector<S> x = at.order.moved(c.data<S>(X)), residual, sum, y = fresh<S>(c.size());
    const std::vector<T> weight = parameter<T>(WEIGHT, length);
    const std::vector<T> bias = centered ? parameter<T>(BIAS, length) : fresh<T>(length);
    std::vector<T> mean = fresh<T>(groups), rstd = fresh<T>(groups);
    if (adds) {
        residual = at.order.moved(c.data<S>(RESIDUAL));
        sum = fresh<S>(c.size());
    }
    if (at.view.kind == Kind::rows) {
        Rows<S> p;
        p.view = at.view;
        p.x = x.data();
        p.y = y.data();
        p.affine = {weight.data(), centered ? bias.data() : nullptr, 1, 1, 0};
        p.how = {0, EPS};
        p.centered = centered;
        p.mean = mean.data();
        p.rstd = rstd.data();
        if (adds) {
            p.residual = residual.data();
            p.sum = sum.data();
        }
        solve(p);
    } else {
        if (adds) x = sum = sum_of(x, residual);
        Groups<S> p = groups_of<S>(at.view, x.data(), y.data());
        p.row_weight = weight.data();
        p.row_bias = bias.data();
        p.how = {0, EPS};
        p.centered = centered;
        p.mean = mean.data();
        p.rstd = rstd.data();
        solve(p);
    }
    out.put(at.order.back(y));
    if (adds) return out.put(at.order.back(sum));
    if (centered) out.put(mean);
    out.put(rstd);
}

// The batch's moments in double, and the running statistics that they enter.
template <class T>
struct Running {
    std::vector<T> mean, var;
    std::vector<double> batch_mean, batch_low, batch_m2;

    explicit Running(index channels)
        : mean(parameter<T>(RUNNING_MEAN, channels)),
          var(parameter<T>(RUNNING_VAR, channels)),
          batch_mean(fresh<double>(channels)),
          batch_low(batch_mean),
          batch_m2(batch_mean) {}
    onepass::MomentsOut batch() { return {batch_mean.data(), batch_low.data(), batch_m2.data()}; }
    void enter(double count) {
        const auto update = [](T& r, double value) { r = T((1.0 - MOMENTUM) * double(r) + MOMENTUM * value); };
        for (std::size_t i = 0; i < mean.size(); ++i) {
            update(mean[i], batch_mean[i] + batch_low[i]);
            update(var[i], batch_m2[i] / count);
        }
    }
};

template <class S>
void batch_norm(const Case& c, Results& out) {
    using T = Arith<S>;
    const bool training = c.says("training");
    const Layout at(c, sizeof(S), Wanted::all);
    const std::vector<S> x = at.order.moved(c.data<S>(X));
    std::vector<S> y = fresh<S>(c.size());
    const index channels = c.channels();
    const std::vector<T> weight = parameter<T>(WEIGHT, channels), bias = parameter<T>(BIAS, channels);
    std::vector<T> mean = fresh<T>(channels), rstd = fresh<T>(channels);
    Running<T> running(channels);
    Groups<S> p = groups_of<S>(at.view, x.data(), y.data());
    p.weight = weight.data();
    p.bias = bias.data();
    p.how = {0, EPS};
    p.mean = mean.data();
    p.rstd = rstd.data();
    if (training) {
        p.moments = running.batch();
    } else {
        p.given_mean = running.mean.data();
        p.given_var = running.var.data();
    }
    solve(p);
    out.put(at.order.back(y));
    out.put(mean);
    out.put(rstd);
    if (!training) return;
    running.enter(double(c.size() / channels));
    out.put(running.mean);
    out.put(running.var);
}

template <class S>
void group_norm(const Case& c, Results& out) {
    using T = Arith<S>;
    const index samples = c.shape[0], channels = c.channels(), groups = channels / c.members();
    const std::vector<S> x = c.data<S>(X);
    std::vector<S> y = fresh<S>(c.size());
    const std::vector<T> weight = parameter<T>(WEIGHT, channels), bias = parameter<T>(BIAS, channels);
    std::vector<T> mean = fresh<T>(samples * groups), rstd = mean;
    if (c.channel() == 1) {
        Rows<S> p;
        p.view = Layout({samples, groups, c.size() / (samples * groups)}, {0, 0, 1}, sizeof(S), Wanted::rows).view;
        p.x = x.data();
        p.y = y.data();
        p.affine = {weight.data(), bias.data(), c.after_channel(), groups, 0};
        p.how = {0, EPS};
        p.mean = mean.data();
        p.rstd = rstd.data();
        solve(p);
    } else {
        const View view =
            Layout({samples, c.before_channel() / samples, channels}, {0, 1, 0}, sizeof(S), Wanted::rows_and_columns).view;
        Groups<S> p = groups_of<S>(view, x.data(), y.data());
        p.groups = groups;
        p.span = p.x_group = p.y_group = c.members();
        p.weight = weight.data();
        p.bias = bias.data();
        p.weight_a_column = true;
        p.how = {0, EPS};
        p.mean = mean.data();
        p.rstd = rstd.data();
        solve(p);
    }
    out.put(y);
    out.put(mean);
    out.put(rstd);
}

// The masked norms and the gradients, of batch, group and instance norm.
template <class S>
void cell_norm(const Case& c, Results& out) {
    using T = Arith<S>;
    const bool backward = c.says("backward"), given = c.says("inference");
    const index channels = c.channels();
    const std::vector<S> x = c.data<S>(X), dy = c.data<S>(DY);
    std::vector<S> y = fresh<S>(c.size());
    const std::vector<T> weight = parameter<T>(WEIGHT, channels), bias = parameter<T>(BIAS, channels);
    const auto mask = parameter<std::uint8_t>(MASK, c.size() / channels);
    Cells<S> p;
    p.x = x.data();
    p.y = y.data();
    p.samples = c.before_channel();
    p.channels = channels;
    p.span = c.after_channel();
    p.across = c.says("batch_norm");
    p.members = c.members();
    if (p.across && p.span == 1) {
        std::swap(p.samples, p.span);
        p.channels_last = true;
    } else if (!p.across && p.span == 1) {
        p.span = p.samples / c.shape[0];
        p.samples = c.shape[0];
        p.channels_last = true;
    }
    if (c.says("masked")) p.weighing.mask = mask.data();
    p.weight = weight.data();
    p.how = {0, EPS};
    Running<T> running(channels);
    if (given) {
        p.given_mean = running.mean.data();
        p.given_var = running.var.data();
    }
    if (backward) {
        std::vector<T> dweight = fresh<T>(channels), dbias = dweight;
        p.dy = dy.data();
        p.dweight = dweight.data();
        p.dbias = dbias.data();
        solve(p);
        out.put(y);
        out.put(dweight);
        return out.put(dbias);
    }
    std::vector<T> mean = fresh<T>(p.groups()), rstd = mean;
    p.bias = bias.data();
    p.mean = mean.data();
    p.rstd = rstd.data();
    if (p.across) p.moments = running.batch();
    solve(p);
    out.put(y);
    out.put(mean);
    out.put(rstd);
    if (!p.across) return;
    running.enter(double(std::count(mask.begin(), mask.end(), 1)));
    out.put(running.mean);
    out.put(running.var);
}

struct Moments {
    std::vector<double> count, mean, low, m2;

    explicit Moments(index groups) : count(fresh<double>(groups)), mean(count), low(count), m2(count) {}
    onepass::MomentsOut out() { return {mean.data(), low.data(), m2.data()}; }
};

template <class S>
Moments moments_of(const Case& c) {
    const Layout at(c, sizeof(S), Wanted::all);
    const std::vector<S> x = at.order.moved(c.data<S>(X));
    Moments m(at.groups());
    if (at.view.kind == Kind::rows) {
        Rows<S> p;
        p.view = at.view;
        p.x = x.data();
        p.moments = m.out();
        solve(p);
    } else {
        Groups<S> p = groups_of<S>(at.view, x.data(), nullptr);
        p.moments = m.out();
        solve(p);
    }
    m.count = {double(c.size() / at.groups())};   // one for all
    return m;
}

// Reduced axes in front of all others are columns; of any other choice, groups become rows.
template <class S>
Moments weighted_moments(const Case& c) {
    const int ndim = int(c.shape.size());
    bool columns = !c.reduces(ndim - 1);
    for (int i = 0; i + 1 < ndim; ++i) columns = columns && c.reduces(i) >= c.reduces(i + 1);
    std::vector<int> axes;
    index groups = 1;
    for (const bool last : {false, true})
        for (int i = 0; i < ndim; ++i)
            if (c.reduces(i) == (columns ? !last : last)) axes.push_back(i);
    for (int i = 0; i < ndim; ++i)
        if (!c.reduces(i)) groups *= c.shape[std::size_t(i)];
    const Order order(c.shape, axes);

    std::vector<S> x = c.data<S>(X);
    auto mask = parameter<std::uint8_t>(MASK, c.size());
    Cells<S> p;
    if (c.says("skipna")) {
        for (std::size_t i = 0; i < x.size(); ++i)
            if (!mask[i]) x[i] = stored<S>(std::numeric_limits<double>::quiet_NaN());
        p.weighing.skipna = true;
    }
    x = order.moved(x);
    mask = order.moved(mask);
    const std::vector<double> weights = order.moved(parameter<double>(WEIGHTS, c.size()));
    Moments m(groups);
    p.x = x.data();
    p.channels = groups;
    p.span = c.size() / groups;
    p.channels_last = columns;
    p.weighing.by_element = true;
    if (c.says("masked")) p.weighing.mask = mask.data();
    if (c.says("weighted")) p.weighing.weights = weights.data();
    p.count = m.count.data();
    p.moments = m.out();
    solve(p);
    return m;
}

template <class S>
void standardize(const Case& c, Results& out) {
    const Layout at(c, sizeof(S), Wanted::all);
    const std::vector<S> x = at.order.moved(c.data<S>(X));
    std::vector<S> y = fresh<S>(c.size());
    if (at.view.kind == Kind::rows) {
        Rows<S> p;
        p.view = at.view;
        p.x = x.data();
        p.y = y.data();
        p.how = {0, EPS};
        solve(p);
    } else {
        Groups<S> p = groups_of<S>(at.view, x.data(), y.data());
        p.how = {0, EPS};
        solve(p);
    }
    out.put(at.order.back(y));
}

template <class S>
void min_max_scale(const Case& c, Results& out) {
    const Layout at(c, sizeof(S), Wanted::all);
    const std::vector<S> x = at.order.moved(c.data<S>(X));
    std::vector<S> y = fresh<S>(c.size());
    solve(onepass::min_max_of(at.view, x.data(), y.data(), onepass::Ends<Arith<S>>{-0.5, 0.75}));
    out.put(at.order.back(y));
}

template <class S>
void row_norm_backward(const Case& c, Results& out) {
    using T = Arith<S>;
    const Layout at(c, sizeof(S), Wanted::rows);
    const std::vector<S> x = at.order.moved(c.data<S>(X)), dy = at.order.moved(c.data<S>(DY));
    std::vector<S> dx = fresh<S>(c.size());
    const std::vector<T> weight = parameter<T>(WEIGHT, at.view.size[2]);
    std::vector<T> dweight = fresh<T>(at.view.size[2]), dbias = dweight;
    onepass::RowGradients<S> p;
    p.view = at.view;
    p.x = x.data();
    p.dy = dy.data();
    p.dx = dx.data();
    p.weight = weight.data();
    p.how = {0, EPS};
    p.centered = c.says("layer_norm");
    p.dweight = dweight.data();
    p.dbias = p.centered ? dbias.data() : nullptr;
    solve(p);
    out.put(at.order.back(dx));
    out.put(dweight);
    if (p.centered) out.put(dbias);
}

template <class S>
void call(const Case& c, Results& out) {
    const auto put = [&](const Moments& m, bool counted) {
        if (counted) out.put(m.count);
        out.put(m.mean);
        out.put(m.m2);
    };
    if (c.name == "layer_norm" || c.name == "rms_norm" || c.name == "add_layer_norm" || c.name == "add_rms_norm")
        return row_norm<S>(c, out);
    if (c.name == "layer_norm_backward" || c.name == "rms_norm_backward") return row_norm_backward<S>(c, out);
    if (c.name == "min_max_scale") return min_max_scale<S>(c, out);
    if (c.name == "batch_norm_training" || c.name == "batch_norm_inference") return batch_norm<S>(c, out);
    if (c.name == "group_norm" || c.name == "instance_norm") return group_norm<S>(c, out);
    for (const char* norm : {"batch_norm", "group_norm", "instance_norm"})
        for (const char* kind : {"_training_masked", "_masked", "_backward", "_backward_masked", "_backward_inference"})
            if (c.name == std::string(norm) + kind) return cell_norm<S>(c, out);
    if (c.name == "moments") return put(moments_of<S>(c), true);
    if (c.name == "moments_masked" || c.name == "moments_weighted" || c.name == "moments_skipna")
        return put(weighted_moments<S>(c), true);
    if (c.name == "standardize") {
        standardize<S>(c, out);
        return put(moments_of<S>(c), false);
    }
    throw std::invalid_argument("tests/cpp/calls.hpp has no such function");
}

}   // namespace golden
