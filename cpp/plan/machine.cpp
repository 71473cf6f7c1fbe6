#include "plan/machine.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#include <unistd.h>

#include "kernels/kernels.hpp"

namespace onepass {
namespace {

// cgroup v2: "max 100000" or "200000 100000" (microseconds of processor time, of wall time).
double quota_v2(const std::string& path) {
    std::ifstream file(path);
    std::string quota;
    double period = 0;
    if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
    return std::strtod(quota.c_str(), nullptr) / period;
}

double quota_v1(const std::string& folder) {
    double quota = 0, period = 0;
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    return quota > 0 && period > 0 ? quota / period : 0;
}

// The smallest quota from the process's own group up to the root: each of them binds.
template <class Quota>
double smallest(const std::string& mount, std::string path, const Quota& quota) {
    double least = 0;
    for (;;) {
        const double here = quota(mount + path);
        if (here > 0 && (least == 0 || here < least)) least = here;
        if (path.empty()) return least;
        path.resize(path.find_last_of('/'));
    }
}

// Bytes of a cache of processor 0, as the kernel numbers them: 0 the first level's for data, 2 the second's, 3 the third's.
// 0 where it does not tell.
std::size_t cache(int number) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(number) + "/size");
    std::size_t size = 0;
    char unit = 0;
    if (!(file >> size)) return 0;
    return file >> unit && unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
}

}   // namespace

double cgroup_quota(const std::string& root) {
    std::ifstream groups(root + "/proc/self/cgroup");
    std::string line;
    double least = 0;
    while (std::getline(groups, line)) {
        std::istringstream fields(line);
        std::string id, controllers, path;
        std::getline(fields, id, ':');
        std::getline(fields, controllers, ':');
        std::getline(fields, path);
        if (path.empty() || path[0] != '/') continue;
        if (path == "/") path.clear();
        double quota = 0;
        if (controllers.empty())
            quota = smallest(root + "/sys/fs/cgroup", path, [](const std::string& p) { return quota_v2(p + "/cpu.max"); });
        else if (("," + controllers + ",").find(",cpu,") != std::string::npos)
            quota = smallest(root + "/sys/fs/cgroup/cpu", path, quota_v1);
        if (quota > 0 && (least == 0 || quota < least)) least = quota;
    }
    return least;
}

int usable_cpus() {
    int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
#endif
    const double quota = cgroup_quota();
    if (quota > 0) cpus = std::min(cpus, static_cast<int>(std::ceil(quota)));
    return std::max(cpus, 1);
}

std::size_t last_level_cache() {
    static const std::size_t bytes = [] {
        // The kernel's own account first: sysconf's is wrong in virtual machines (it multiplies by the host's cores).
        for (const int level : {3, 2})
            if (const std::size_t size = cache(level)) return size;
        long found = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
        found = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
        return found > 0 ? static_cast<std::size_t>(found) : std::size_t(8) << 20;
    }();
    return bytes;
}

std::size_t first_level_cache() {
    static const std::size_t bytes = [] {
        const char* given = std::getenv("ONEPASS_FIRST_CACHE");
        const std::size_t found = given ? std::strtoull(given, nullptr, 10) : cache(0);
        return found > 0 ? found : std::size_t(32) << 10;
    }();
    return bytes;
}

const bool roomy_first_cache = first_level_cache() > 32 << 10;

}   // namespace onepass
