#include "plan/view.hpp"

#include <algorithm>
#include <cstdlib>

namespace onepass {
namespace {

struct Dim {
    index size;
    bool reduced;
    index stride[MAX_OPERANDS];   // bytes
};

// Whether short spans, which will be seen as columns, lie densely enough for it, or are brought so.
bool as_columns_fit(const View& view, int operands) {
    if (view.kind != Kind::blocks || view.size[2] >= LONG_SPAN) return true;
    for (int k = 0; k < operands; ++k)
        if (view.stride[k][2] == 1 && view.stride[k][1] != view.size[2]) return false;
    return true;
}

// Whether rows lie beside each other (and their elements do not); and of blocks, all places behind each other.
bool lie_turned(const View& view, int k, bool blocks) {
    const index(&stride)[3] = view.stride[k];
    return stride[1] == 1 && stride[2] != 1 && (!blocks || view.size[0] == 1 || stride[0] == view.size[2] * stride[2]);
}

}   // namespace

View canonical(const Operands& arrays, const bool* reduced) {
    Dim dims[MAX_NDIM + 1];
    int n = 0;
    for (int axis = 0; axis < arrays.ndim; ++axis) {
        if (arrays.shape[axis] == 1) continue;
        Dim dim = {arrays.shape[axis], reduced[axis], {}};
        bool joins = n > 0 && dims[n - 1].reduced == dim.reduced;
        for (int k = 0; k < arrays.count; ++k) {
            dim.stride[k] = arrays.strides[k][axis];
            joins = joins && dims[n - 1].stride[k] == dim.size * dim.stride[k];
        }
        if (joins) {
            dim.size *= dims[n - 1].size;
            dims[n - 1] = dim;
        } else {
            dims[n++] = dim;
        }
    }
    // Groups of one element are columns of one row.
    if (n == 0 || (!dims[n - 1].reduced && (n == 1 || !dims[n - 2].reduced))) {
        dims[n] = n ? dims[n - 1] : Dim{1, true, {}};
        if (n) dims[n - 1] = {1, true, {}};
        if (!n)
            for (int k = 0; k < arrays.count; ++k) dims[0].stride[k] = arrays.itemsize[k];
        ++n;
    }
    View view;
    const int nestings = std::max(n - 3, 0);
    const bool of_rows =
        dims[n - 1].reduced && std::none_of(dims, dims + n - 1, [](const Dim& dim) { return dim.reduced; });
    if (nestings > (of_rows ? MAX_NESTED : 0)) return view;
    for (int i = 0; i < n; ++i)
        for (int k = 0; k < arrays.count; ++k) {
            if (dims[i].stride[k] % arrays.itemsize[k] != 0) return view;
            dims[i].stride[k] /= arrays.itemsize[k];
        }
    for (int i = 0; i < n; ++i) {
        const bool nested = 0 < i && i <= nestings;
        const int place = i == 0 && nestings ? 0 : 3 - n + i;
        if (nested)
            view.nested[view.nestings++].size = dims[i].size;
        else
            view.size[place] = dims[i].size;
        for (int k = 0; k < arrays.count; ++k)
            (nested ? view.nested[i - 1].stride[k] : view.stride[k][place]) = dims[i].stride[k];
    }
    for (int i = 0; i < nestings; ++i) view.size[0] *= view.nested[i].size;
    bool turned = arrays.turned && !of_rows;
    for (int k = 0; k < arrays.count; ++k) turned = turned && lie_turned(view, k, dims[n - 1].reduced);
    for (int k = 0; k < arrays.count; ++k) {
        const bool may = turned || (of_rows ? arrays.loose[k] : arrays.loose_columns[k]);
        if (view.stride[k][2] != 1 && !(may && near(view.stride[k][1], view.stride[k][2]))) return view;
    }
    const bool last = dims[n - 1].reduced, middle = n > 1 && dims[n - 2].reduced, first = n > 2 && dims[n - 3].reduced;
    if (!last)
        view.kind = !first ? Kind::columns : Kind::none;   // middle is reduced: see above
    else if (!middle)
        view.kind = first ? Kind::blocks : Kind::rows;
    if (!as_columns_fit(view, arrays.count)) view.kind = Kind::none;
    return view;
}

}   // namespace onepass
