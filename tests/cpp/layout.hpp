// A line of the golden table, and dense arrays as the plan sees them, in C++ what cpp/bindings/layout.cpp is for NumPy's.
#pragma once

#include <ostream>
#include <string>

#include "numbers.hpp"
#include "plan/view.hpp"

namespace golden {

using onepass::Kind, onepass::View;

// A line of the table.
struct Case {
    std::string name;
    std::vector<index> shape;
    std::vector<int> axes;
    index inner, number;   // of the groups that set the kinds

    bool says(const char* word) const { return name.find(word) != std::string::npos; }
    index size() const { return product(0, shape.size()); }
    int channel() const { return axes.at(0); }
    index channels() const { return shape[std::size_t(channel())]; }
    index before_channel() const { return product(0, std::size_t(channel())); }
    index after_channel() const { return product(std::size_t(channel()) + 1, shape.size()); }
    bool reduces(int axis) const { return std::find(axes.begin(), axes.end(), axis) != axes.end(); }
    index members() const {   // channels of a group
        if (!says("group_norm")) return 1;
        return channels() / (channels() == 24 ? 6 : 4);
    }

    template <class S>
    std::vector<S> data(Number array) const {
        return golden::data<S>(array, size(), inner, array == DY ? 0 : number);
    }

  private:
    index product(std::size_t from, std::size_t to) const {
        index n = 1;
        for (std::size_t i = from; i < to; ++i) n *= shape[i];
        return n;
    }
};

// The bytes of all results, one array after another.
class Results {
  public:
    explicit Results(std::ostream& to) : to_(to) {}
    template <class T>
    void put(const std::vector<T>& values) {
        to_.write(reinterpret_cast<const char*>(values.data()), std::streamsize(values.size() * sizeof(T)));
    }

  private:
    std::ostream& to_;
};

template <class T>
std::vector<T> fresh(index n) {
    return std::vector<T>(std::size_t(n));
}

// A dense array whose axes stand in another order.
class Order {
  public:
    Order() = default;
    Order(const std::vector<index>& shape, const std::vector<int>& order) {
        const index ndim = index(shape.size());
        std::vector<index> stride(shape.size(), 1), at(shape.size(), 0);
        for (index i = ndim - 1; i-- > 0;) stride[std::size_t(i)] = stride[std::size_t(i) + 1] * shape[std::size_t(i) + 1];
        for (;;) {
            index place = 0;
            for (index i = 0; i < ndim; ++i) place += at[std::size_t(i)] * stride[std::size_t(order[std::size_t(i)])];
            places_.push_back(place);
            index i = ndim - 1;
            while (i >= 0 && ++at[std::size_t(i)] == shape[std::size_t(order[std::size_t(i)])]) at[std::size_t(i--)] = 0;
            if (i < 0) return;
        }
    }
    template <class S>
    std::vector<S> moved(const std::vector<S>& array) const {
        if (places_.empty()) return array;
        std::vector<S> to(array.size());
        for (std::size_t i = 0; i < array.size(); ++i) to[i] = array[std::size_t(places_[i])];
        return to;
    }
    template <class S>
    std::vector<S> back(const std::vector<S>& array) const {
        if (places_.empty()) return array;
        std::vector<S> to(array.size());
        for (std::size_t i = 0; i < array.size(); ++i) to[std::size_t(places_[i])] = array[i];
        return to;
    }

  private:
    std::vector<index> places_;   // empty: the order is as it was
};

// The kinds of view that a function can use.
enum class Wanted { rows, rows_and_columns, all };

// The view of dense arrays. Where it is not one that is wanted, axes are moved until groups are rows.
struct Layout {
    View view;
    Order order;

    Layout(const std::vector<index>& shape, const std::vector<char>& reduced, index itemsize, Wanted wanted) {
        view = seen(shape, reduced, itemsize);
        if (view.kind == Kind::rows || (view.kind == Kind::columns && wanted != Wanted::rows) ||
            (view.kind == Kind::blocks && wanted == Wanted::all))
            return;
        std::vector<int> axes;
        std::vector<index> moved_shape;
        std::vector<char> at_end;
        for (const char last : {0, 1})
            for (std::size_t i = 0; i < shape.size(); ++i)
                if (reduced[i] == last) {
                    axes.push_back(int(i));
                    moved_shape.push_back(shape[i]);
                    at_end.push_back(last);
                }
        order = Order(shape, axes);
        view = seen(moved_shape, at_end, itemsize);
    }

    Layout(const Case& c, index itemsize, Wanted wanted) : Layout(c.shape, reduced_by(c), itemsize, wanted) {}

    index groups() const {
        const index outer = view.kind == Kind::blocks ? 1 : view.size[0];
        return outer * view.size[view.kind == Kind::columns ? 2 : 1];
    }

  private:
    static std::vector<char> reduced_by(const Case& c) {
        std::vector<char> reduced;
        for (std::size_t i = 0; i < c.shape.size(); ++i)
            reduced.push_back(c.says("batch_norm") ? int(i) != c.channel() : c.reduces(int(i)));
        return reduced;
    }
    static View seen(const std::vector<index>& shape, const std::vector<char>& reduced, index itemsize) {
        std::vector<index> strides(shape.size(), itemsize);
        for (std::size_t i = shape.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * shape[i + 1];
        onepass::Operands arrays;
        arrays.ndim = int(shape.size());
        arrays.shape = shape.data();
        arrays.count = onepass::MAX_OPERANDS;
        for (int k = 0; k < arrays.count; ++k) {
            arrays.strides[k] = strides.data();
            arrays.itemsize[k] = itemsize;
        }
        bool flags[onepass::MAX_NDIM];
        std::copy(reduced.begin(), reduced.end(), flags);
        return onepass::canonical(arrays, flags);
    }
};

}   // namespace golden
